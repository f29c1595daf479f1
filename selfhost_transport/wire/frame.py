"""Frames: the one typed form of the protocol's messages, and its two encodings (protocol section 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from selfhost_transport.errors import BadRequest, ErrorInfo
from selfhost_transport.wire import fields
from selfhost_transport.wire.actions import ACKNOWLEDGED, Action
from selfhost_transport.wire.annotation import Annotation, decode_annotation, encode_annotation
from selfhost_transport.wire.codec import Format, check_plain, pack, unpack_map
from selfhost_transport.wire.details import (
    ConnectionDetails,
    decode_details,
    decode_error,
    encode_details,
)
from selfhost_transport.wire.halves import Halves
from selfhost_transport.wire.message import Message, decode_message, encode_message
from selfhost_transport.wire.presence import PresenceMessage, decode_presence, encode_presence
from selfhost_transport.wire.receipts import CancelReceipt, TurnReceipt, decode_cancel, decode_turn

__all__ = [
    "AckResult",
    "CancelReceipt",
    "ConnectionDetails",
    "Frame",
    "FrameError",
    "TurnReceipt",
    "decode_frame",
    "encode_frame",
    "frame_map",
]

_ACTIONS = {action.value: action for action in Action}
_MAX_FLAGS = 2**32 - 1
_MAX_ACTION = 2**31 - 1
_Item = TypeVar("_Item")


@dataclass(slots=True)
class AckResult:
    """What one acknowledged frame became: a serial per message, None where superseded (section 6.3).

    `turn` is set for a send that a turn answers, `cancel` for a cancel that ended turns at once.
    """

    serials: list[str | None]
    turn: TurnReceipt | None = None
    cancel: CancelReceipt | None = None


@dataclass(slots=True)
class Frame:
    """A ProtocolMessage. `action` stays a plain integer where it is none of ours; such frames are ignored.

    `access_token` is `auth.accessToken` on the wire; `state` holds LiveObjects operations, not interpreted.
    """

    action: int
    id: str | None = None
    channel: str | None = None
    channel_serial: str | None = None
    connection_id: str | None = None
    connection_key: str | None = None
    connection_details: ConnectionDetails | None = None
    msg_serial: int | None = None
    count: int | None = None
    res: list[AckResult] | None = None
    error: ErrorInfo | None = None
    flags: int | None = None
    params: dict[str, str] | None = None
    timestamp: int | None = None
    messages: list[Message] | None = None
    presence: list[PresenceMessage] | None = None
    annotations: list[Annotation] | None = None
    state: list[Any] | None = None
    access_token: str | None = None


class FrameError(BadRequest):
    """A frame whose envelope could be read but whose content is wrong, with the fields needed to answer it.

    Where `needs_nack` is true the frame is answered with NACK(msg_serial, count), where it has a `channel`
    with ERROR for that channel; the connection continues (protocol sections 4.4 and 6.3).
    """

    def __init__(self, error: BadRequest, action: int, msg_serial: int | None, channel: str | None) -> None:
        info = error.info
        super().__init__(info.message, code=info.code, status_code=info.status_code)
        self.action = action
        # An absent msgSerial means 0; None is one that could not be read.
        self.msg_serial = msg_serial
        # A frame counts once however many messages it holds.
        self.count = 1
        self.channel = channel

    @property
    def needs_nack(self) -> bool:
        """Whether the sender waits for an ACK or NACK of this frame and its number is known."""
        return self.action in ACKNOWLEDGED and self.msg_serial is not None


def decode_frame(raw: str | bytes, fmt: Format, halves: Halves | None = None) -> Frame:
    """Read one frame: null is absent, unknown fields and actions are tolerated, wrong types are not.

    Raises FrameError when the frame can be answered, BadRequest 40001 when it cannot be read at all. No input
    makes it raise anything else. `halves`: those that the connection's appends left, to be completed.
    """
    if halves is None:
        wire = unpack_map(raw, fmt)
    else:
        before = halves.joined
        wire = unpack_map(raw, fmt, halves.join)
        if halves and halves.joined == before:
            halves.join(wire)
    number = fields.integer(wire, "action", high=_MAX_ACTION)
    if number is None:
        raise BadRequest("a frame needs an action")
    action = _ACTIONS.get(number, number)
    try:
        return _decode_fields(action, wire, fmt)
    except BadRequest as error:
        raise FrameError(error, action, _readable_serial(wire), _readable_channel(wire)) from error


def encode_frame(frame: Frame, fmt: Format) -> bytes:
    """The payload of one websocket message. Raises BadRequest 40013 for what the format cannot carry."""
    return pack(frame_map(frame, fmt), fmt)


def frame_map(frame: Frame, fmt: Format) -> dict[str, Any]:
    """The wire map of a frame: absent fields omitted, zero and empty ones kept (protocol section 2.4)."""
    wire: dict[str, Any] = {"action": int(frame.action)}
    for name, attribute in _PLAIN_FIELDS:
        value = getattr(frame, attribute)
        if value is not None:
            wire[name] = value
    if frame.connection_details is not None:
        wire["connectionDetails"] = encode_details(frame.connection_details)
    if frame.res is not None:
        wire["res"] = [_encode_result(result) for result in frame.res]
    if frame.error is not None:
        wire["error"] = frame.error.to_wire()
    if frame.flags is not None:
        wire["flags"] = int(frame.flags)
    if frame.messages is not None:
        wire["messages"] = [encode_message(message, fmt) for message in frame.messages]
    if frame.presence is not None:
        wire["presence"] = [encode_presence(member, fmt) for member in frame.presence]
    if frame.annotations is not None:
        wire["annotations"] = [encode_annotation(annotation, fmt) for annotation in frame.annotations]
    if frame.access_token is not None:
        wire["auth"] = {"accessToken": frame.access_token}
    return wire


_PLAIN_FIELDS = (
    ("id", "id"), ("channel", "channel"), ("channelSerial", "channel_serial"),
    ("connectionId", "connection_id"), ("connectionKey", "connection_key"), ("msgSerial", "msg_serial"),
    ("count", "count"), ("params", "params"), ("timestamp", "timestamp"), ("state", "state"),
)  # fmt: skip


def _decode_fields(action: int, wire: Mapping[str, Any], fmt: Format) -> Frame:
    auth = fields.submap(wire, "auth")
    error = fields.submap(wire, "error")
    details = fields.submap(wire, "connectionDetails")
    return Frame(
        action=action,
        id=fields.text(wire, "id"),
        channel=fields.text(wire, "channel"),
        channel_serial=fields.text(wire, "channelSerial"),
        connection_id=fields.text(wire, "connectionId"),
        connection_key=fields.text(wire, "connectionKey"),
        connection_details=None if details is None else decode_details(details),
        msg_serial=fields.integer(wire, "msgSerial"),
        count=fields.integer(wire, "count"),
        res=_decode_results(wire),
        error=None if error is None else decode_error(error),
        flags=fields.integer(wire, "flags", high=_MAX_FLAGS),
        params=fields.scalar_map(wire, "params"),
        timestamp=fields.integer(wire, "timestamp"),
        messages=_decode_items(wire, "messages", decode_message, fmt),
        presence=_decode_items(wire, "presence", decode_presence, fmt),
        annotations=_decode_items(wire, "annotations", decode_annotation, fmt),
        state=_decode_state(wire),
        access_token=None if auth is None else fields.text(auth, "accessToken"),
    )


def _decode_items(
    wire: Mapping[str, Any], name: str, decode: Callable[[Mapping[str, Any], Format], _Item], fmt: Format
) -> list[_Item] | None:
    found = fields.items(wire, name)
    if found is None:
        return None
    decoded: list[_Item] = []
    for index, item in enumerate(found):
        if not isinstance(item, Mapping):
            raise fields.expect("a map", f"{name}[{index}]", item)
        try:
            decoded.append(decode(item, fmt))
        except BadRequest as error:
            info = error.info
            raise BadRequest(f"{name}[{index}]: {info.message}", code=info.code) from error
    return decoded


def _decode_results(wire: Mapping[str, Any]) -> list[AckResult] | None:
    found = fields.items(wire, "res")
    if found is None:
        return None
    return [_decode_result(item) for item in found]


def _encode_result(result: AckResult) -> dict[str, Any]:
    wire: dict[str, Any] = {"serials": result.serials}
    if result.turn is not None:
        wire["turn"] = result.turn.to_wire()
    if result.cancel is not None:
        wire["cancel"] = result.cancel.to_wire()
    return wire


def _decode_result(item: object) -> AckResult:
    result = AckResult(_decode_serials(item))
    if isinstance(item, Mapping):
        turn, cancel = fields.submap(item, "turn"), fields.submap(item, "cancel")
        result.turn = None if turn is None else decode_turn(turn)
        result.cancel = None if cancel is None else decode_cancel(cancel)
    return result


def _decode_serials(item: object) -> list[str | None]:
    # A frame without a result of its own still has its place in the list.
    serials = item.get("serials") if isinstance(item, Mapping) else item
    if serials is None:
        return []
    if not isinstance(serials, list) or not all(
        serial is None or isinstance(serial, str) for serial in serials
    ):
        raise BadRequest("res must be a list of {serials: [string or null]}")
    return serials


def _decode_state(wire: Mapping[str, Any]) -> list[Any] | None:
    state = fields.items(wire, "state")
    check_plain(state, "state", binary=True)
    return state


def _readable_serial(wire: Mapping[str, Any]) -> int | None:
    try:
        return fields.integer(wire, "msgSerial") or 0
    except BadRequest:
        return None


def _readable_channel(wire: Mapping[str, Any]) -> str | None:
    channel = wire.get("channel")
    return channel if isinstance(channel, str) else None
