"""Frame: encoding what the gateway sends: appends from templates, everything else in full."""

from __future__ import annotations

import asyncio

from benchmarks.figures import Figure
from benchmarks.rig import TOKEN, per_call_us, rig
from selfhost_transport.wire.actions import Action, MessageAction
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, encode_frame
from selfhost_transport.wire.message import Message, Version
from selfhost_transport.wire.template import AppendTemplate
from selfhost_transport.wire.websocket import ws_frame_header

_CHANNEL_SERIAL = "01763000000000-004@abcdefghij"
_SERIAL = f"{_CHANNEL_SERIAL}:000"


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    header = asyncio.run(_header())
    found = []
    for fmt in Format:
        template = AppendTemplate("bench:1", header, fmt)
        whole = Frame(
            Action.MESSAGE, channel="bench:1", channel_serial=_CHANNEL_SERIAL, messages=[_append(header)]
        )
        spliced = per_call_us(lambda template=template: _spliced(template))  # type: ignore[misc]
        full = per_call_us(lambda whole=whole, fmt=fmt: encode_frame(whole, fmt))  # type: ignore[misc]
        found += [
            Figure("frame", f"append from a template, {fmt}", spliced, "us"),
            Figure("frame", f"append in full, {fmt}", full, "us"),
            Figure("frame", f"size of an append, {fmt}", float(len(_spliced(template))), "bytes"),
        ]
    return found


def _spliced(template: AppendTemplate) -> bytes:
    payload = template.frame(_CHANNEL_SERIAL, TOKEN, _SERIAL, 1_763_000_000_000)
    return ws_frame_header(True, len(payload)) + payload


def _append(header: Message) -> Message:
    return Message(
        id="id",
        name=header.name,
        data=TOKEN,
        client_id=header.client_id,
        timestamp=1_763_000_000_000,
        extras=header.extras,
        serial=_SERIAL,
        action=MessageAction.APPEND,
        version=Version(_SERIAL, 1_763_000_000_000),
    )


async def _header() -> Message:
    async with rig() as bench:
        message = (await bench.open_text("bench:1")).header
        message.id, message.serial, message.timestamp = "id", _SERIAL, 1_763_000_000_000
        return message
