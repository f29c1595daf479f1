"""The fan-out's fast path: append frames spliced from parts that are encoded once per message and format.

Streaming a token sends the same name, ids and extras each time; only the position, the text and the version
differ. The result decodes exactly as the frame that encode_frame would make (protocol section 7.4).
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

import msgpack
import orjson

from selfhost_transport.errors import BadRequest
from selfhost_transport.wire.actions import Action, MessageAction
from selfhost_transport.wire.codec import Format, pack
from selfhost_transport.wire.message import Message, encode_message
from selfhost_transport.wire.payload import json_encoding

_pack = msgpack.Packer(use_bin_type=True).pack
_MAX_FIXMAP = 15


class AppendTemplate:
    """Append frames of one message on one channel in one format. `header` is the message without its data.

    Make a new template when the extras or the encoding change. An operation with a description or metadata in
    its version is rare and goes through encode_frame.
    """

    __slots__ = ("_encode", "fixed_parts")

    def __init__(self, channel: str, header: Message, fmt: Format) -> None:
        still = replace(header, data=None, encoding=None, action=MessageAction.APPEND, version=None)
        fixed = encode_message(still, fmt)
        encoding = header.encoding
        make = _JsonParts if fmt is Format.JSON else _MsgpackParts
        parts = make(channel, fixed, encoding)
        self._encode = parts.frame
        # For appends of text by no named client: whether it is JSON, what comes before the data, and what between the
        # data and the version's serial.
        self.fixed_parts = (fmt is Format.JSON, parts.head, parts.between)

    def frame(
        self,
        channel_serial: str,
        data: str | bytes,
        version_serial: str,
        version_timestamp: int,
        *,
        version_client_id: str | None = None,
    ) -> bytes:
        """The payload of the websocket message that delivers one appended chunk.

        `version_timestamp` is ms since the epoch. Raises BadRequest 40013 for text that UTF-8 cannot carry.
        """
        try:
            return self._encode(channel_serial, data, version_serial, version_timestamp, version_client_id)
        except (TypeError, ValueError) as error:
            raise BadRequest(f"cannot be encoded: {error}", code=40013) from error


class _JsonParts:
    """A JSON frame cut where data, version and channelSerial go."""

    __slots__ = ("_binary", "between", "head")

    def __init__(self, channel: str, fixed: dict[str, object], encoding: str | None) -> None:
        prefix = pack({"action": Action.MESSAGE.value, "channel": channel}, Format.JSON)[:-1]
        self.head = prefix + b',"messages":[' + pack(fixed, Format.JSON)[:-1] + b',"data":'
        version = b',"version":{"serial":'
        self.between = version if encoding is None else b',"encoding":' + orjson.dumps(encoding) + version
        self._binary = b',"encoding":' + orjson.dumps(json_encoding(encoding)) + version

    def frame(
        self, position: str, data: str | bytes, serial: str, timestamp: int, client_id: str | None
    ) -> bytes:
        dumps = orjson.dumps
        binary = isinstance(data, bytes)
        return b"".join(
            (
                self.head,
                dumps(b64encode(data).decode("ascii") if isinstance(data, bytes) else data),
                self._binary if binary else self.between,
                dumps(serial),
                b',"timestamp":',
                dumps(timestamp),
                b"}}]" if client_id is None else b',"clientId":' + dumps(client_id) + b"}}]",
                b',"channelSerial":',
                dumps(position),
                b"}",
            )
        )


class _MsgpackParts:
    """A msgpack frame cut at the same places; map sizes are known beforehand."""

    __slots__ = ("_version_by", "between", "head")

    def __init__(self, channel: str, fixed: dict[str, object], encoding: str | None) -> None:
        if encoding is not None:
            fixed = {**fixed, "encoding": encoding}
        size = len(fixed) + 2
        # At most 12 fields exist, so the short form of the map header always fits.
        assert size <= _MAX_FIXMAP
        prefix = b"\x84" + _pairs({"action": Action.MESSAGE.value, "channel": channel})
        self.head = (
            prefix + _pack("messages") + b"\x91" + bytes((0x80 | size,)) + _pairs(fixed) + _pack("data")
        )
        self.between = _pack("version") + b"\x82" + _pack("serial")
        self._version_by = _pack("version") + b"\x83" + _pack("serial")

    def frame(
        self, position: str, data: str | bytes, serial: str, timestamp: int, client_id: str | None
    ) -> bytes:
        return b"".join(
            (
                self.head,
                _pack(data),
                self.between if client_id is None else self._version_by,
                _pack(serial),
                b"\xa9timestamp",
                _pack(timestamp),
                b"" if client_id is None else b"\xa8clientId" + _pack(client_id),
                b"\xadchannelSerial",
                _pack(position),
            )
        )


def _pairs(fields: dict[str, object]) -> bytes:
    return b"".join(_pack(key) + pack(value, Format.MSGPACK) for key, value in fields.items())
