"""The functions of the accelerator in Python: the reference for `_native.c`, and what runs where that is not compiled."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import orjson

from selfhost_transport.wire.websocket import ws_frame_header

Template: TypeAlias = tuple[bool, bytes, bytes]
"""An append's frame without what changes: whether it is JSON, what stands before the data, what between data and version."""
AppendFrames: TypeAlias = tuple[bytes, int, tuple[bytes, ...]]
"""The position of an append as Redis names it, its ms since the epoch, and its frames, one for each template."""

_NAME: Final = re.compile(rb"([0-9]{1,14})-([0-9]{1,3})")
_EPOCH: Final = re.compile(rb"[a-z0-9]{10}")
# The widths of a text's length in msgpack, by the byte before it.
_WIDTHS: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
# What `chunk_head` returns for chunks as models send them: made once, and found without a call.
_SHORT_HEADS: Final = tuple(bytes((0x91, 0xA0 | length)) for length in range(32))


def append_frames(
    notification: bytes, last: bytes, entry_head: bytes, epoch: bytes, templates: tuple[Template, ...]
) -> AppendFrames | None:
    """The frames of a notification that adds text, and nothing else, to a message that is known.

    `last`: the position before it; `entry_head`: what the entries of appends to the message begin with. None for
    any other notification, and for what cannot be read: neither is an error here.
    """
    name, _, rest = notification.partition(b" ")
    begin = last + b" " + entry_head
    position = _NAME.fullmatch(name)
    if position is None or not rest.startswith(begin) or _EPOCH.fullmatch(epoch) is None:
        return None
    text = _text(rest[len(begin) :])
    if text is None:
        return None
    ms = int(position[1])
    serial = b"%014d-%03d@%s" % (ms, int(position[2]), epoch)
    return name, ms, tuple(_frame(template, text, serial, ms) for template in templates)


def append_command(head: bytes, offset: int, chunk: bytes, entry_head: bytes) -> bytes:
    """What a call of `append.lua` gives as Redis reads it, from `head`, which has everything before its last three arguments.

    `offset`: where the chunk begins in its message, in bytes. `chunk`: UTF-8.
    """
    length = len(chunk)
    entry = entry_head + (_SHORT_HEADS[length] if length < 32 else chunk_head(length))
    at = b"%d" % offset
    return b"%s$%d\r\n%s\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (
        head, len(at), at, length, chunk, len(entry), entry,
    )  # fmt: skip


def chunk_head(length: int) -> bytes:
    """The msgpack head of `[chunk]`: a list of one, then the head of a text of `length` bytes."""
    return b"\x91" + _text_head(length)


def _text_head(length: int) -> bytes:
    if length < 32:
        return bytes((0xA0 | length,))
    if length < 1 << 8:
        return bytes((0xD9, length))
    if length < 1 << 16:
        return b"\xda" + length.to_bytes(2, "big")
    return b"\xdb" + length.to_bytes(4, "big")


def _text(body: bytes) -> bytes | None:
    """The text in `[text]`; None for anything else."""
    if len(body) < 2 or body[0] != 0x91:
        return None
    kind, start = body[1], 2
    if 0xA0 <= kind <= 0xBF:
        length = kind & 0x1F
    elif kind in _WIDTHS:
        start += _WIDTHS[kind]
        length = int.from_bytes(body[2:start], "big")
    else:
        return None
    text = body[start:]
    return text if len(text) == length and start <= len(body) and _is_utf8(text) else None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _frame(template: Template, text: bytes, serial: bytes, ms: int) -> bytes:
    is_json, head, between = template
    if is_json:
        payload = b'%s%s%s"%s:000","timestamp":%d}}],"channelSerial":"%s"}' % (
            head, orjson.dumps(text.decode()), between, serial, ms, serial,
        )  # fmt: skip
    else:
        payload = b"".join(
            (
                head, _text_head(len(text)), text, between,
                b"\xd9\x21", serial, b":000\xa9timestamp", _number(ms), b"\xadchannelSerial\xbd", serial,
            )
        )  # fmt: skip
    return ws_frame_header(is_json, len(payload)) + payload


def _number(value: int) -> bytes:
    if value < 1 << 7:
        return bytes((value,))
    for kind, width in ((b"\xcc", 1), (b"\xcd", 2), (b"\xce", 4)):
        if value < 1 << (8 * width):
            return kind + value.to_bytes(width, "big")
    return b"\xcf" + value.to_bytes(8, "big")
