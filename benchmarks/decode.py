"""Decode: entries of the log as gateways read them, and frames that clients send."""

from __future__ import annotations

from benchmarks.figures import Figure
from benchmarks.rig import TOKEN, per_call_us
from selfhost_transport.store.entries import Ref, pack_append_body, pack_created, unpack_entry
from selfhost_transport.turns import inputs
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, decode_frame, encode_frame
from selfhost_transport.wire.serial import Position

_AT = Position(1_763_000_000_000, 4)


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    append = b"A" + str(Ref(_AT)).encode() + b"\n" + pack_append_body(TOKEN)
    messages = inputs.user_message([TextPart("Plan a trip")], inputs.InputIds(), client_id="user-1")
    created = pack_created(messages)
    found = [
        Figure("decode", "entry: an append", per_call_us(lambda: unpack_entry(_AT, append)), "us"),
        Figure("decode", "entry: a create", per_call_us(lambda: unpack_entry(_AT, created)), "us"),
        Figure("decode", "a position", per_call_us(lambda: Position.parse_id("1763000000000-4")), "us"),
    ]
    for fmt in Format:
        frame = encode_frame(Frame(Action.MESSAGE, channel="c:1", msg_serial=1, messages=messages), fmt)
        cost = per_call_us(lambda frame=frame, fmt=fmt: decode_frame(frame, fmt))  # type: ignore[misc]
        found.append(Figure("decode", f"frame: a send, {fmt}", cost, "us"))
    return found
