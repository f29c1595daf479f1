"""A reader that stops reading harms no one, and is caught up with current state (P10, CON-14, STR-12)."""

from __future__ import annotations

import asyncio

from tests.gateway.raw import ATTACHED, CONFIG, MESSAGE, Map, RawClient, client
from tests.processes import Stack

CHUNK = "x" * 60_000
CHUNKS = 150
CHANNEL = "plain:slow"


async def test_a_slow_reader_is_caught_up_and_no_one_waits_for_it(stack: Stack) -> None:
    # With the usual time between pings: the slow reader's pongs are as late as its reading.
    small = CONFIG.replace("max_idle_ms = 1500", "outgoing_buffer_bytes = 65536")
    assert small != CONFIG
    gateway = await stack.gateway(config=small)
    async with (
        client(gateway.url, echo="false") as writer,
        client(gateway.url) as quick,
        client(gateway.url) as slow,
    ):
        for raw in (writer, quick, slow):
            await raw.next()
            assert (await raw.attach(CHANNEL))["action"] == ATTACHED
        serial = (await writer.publish(CHANNEL, {"name": "n", "data": ""}))["res"][0]["serials"][0]
        expected = "".join(f"{number:04d}{CHUNK}" for number in range(CHUNKS))
        reading = asyncio.create_task(_read(quick, expected))
        for number in range(CHUNKS):
            await writer.publish(CHANNEL, {"action": 5, "serial": serial, "data": f"{number:04d}{CHUNK}"})
        async with asyncio.timeout(20):
            assert await reading == CHUNKS + 1
            # It missed most chunks, and gets the whole instead.
            assert await _read(slow, expected) < CHUNKS
        last = await writer.publish(CHANNEL, {"action": 5, "serial": serial, "data": "end"})
        message = await slow.message()
        assert (message["action"], message["data"]) == (5, "end")
        assert message["version"]["serial"] == last["res"][0]["serials"][0]


async def _read(raw: RawClient, expected: str) -> int:
    """Follow the message as a client does until it is complete; how many frames that took."""
    text, version, frames = "", "", 0
    while len(text) < len(expected):
        frame: Map = await raw.action(MESSAGE, ATTACHED)
        assert frame["action"] == MESSAGE, "continuity was lost"
        frames += 1
        message = frame["messages"][0]
        assert message["version"]["serial"] > version
        version = message["version"]["serial"]
        text = text + message["data"] if message["action"] == 5 else message["data"]
    assert text == expected
    return frames
