"""A raw client of the realtime protocol: frames as the wire has them, no SDK in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from selfhost_transport.wire.codec import Format, pack, unpack_map

KEY = "app.key:secret"
CONFIG = """
[gateway]
max_idle_ms = 1500

[[keys]]
name = "app.key"
secret = "secret"

[[keys]]
name = "app.reader"
secret = "reader"
capability = { "*" = ["subscribe", "history"] }

[[namespaces]]
id = "bound"
agent = "assistant"

[[namespaces]]
id = "single"
agent = "assistant"
policy = "reject"

[[namespaces]]
id = "limited"
agent = "assistant"
max_active = 1

[[namespaces]]
id = "veiled"
withhold = ["reasoning"]
"""
ACK, NACK, CONNECTED, DISCONNECTED, ERROR, ATTACHED, DETACHED, MESSAGE = 1, 2, 4, 6, 9, 11, 13, 15
TIMEOUT_S = 30.0
Map = dict[str, Any]


def message(channel: str, number: int, data: str) -> Map:
    """The frame of a publish."""
    return {"action": MESSAGE, "channel": channel, "msgSerial": number, "messages": [{"data": data}]}


class RawClient:
    """One websocket. Frames that no one asked for yet are kept in order."""

    def __init__(self, websocket: ClientConnection, fmt: Format) -> None:
        self._websocket = websocket
        self._fmt = fmt
        self._kept: list[Map] = []
        self._serial = 0

    async def send(self, frame: Map) -> None:
        """Send one frame."""
        packed = pack(frame, self._fmt)
        await self._websocket.send(packed.decode() if self._fmt is Format.JSON else packed)

    async def send_raw(self, raw: str | bytes) -> None:
        """Send anything."""
        await self._websocket.send(raw)

    async def next(self, wanted: Callable[[Map], bool] = lambda frame: True) -> Map:
        """The next frame that is wanted; the others are kept for later."""
        for index, frame in enumerate(self._kept):
            if wanted(frame):
                return self._kept.pop(index)
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                raw = await self._websocket.recv()
                assert isinstance(raw, str) == (self._fmt is Format.JSON)
                frame = unpack_map(raw, self._fmt)
                if wanted(frame):
                    return frame
                self._kept.append(frame)

    async def action(self, *actions: int) -> Map:
        """The next frame with one of these actions."""
        return await self.next(lambda frame: frame["action"] in actions)

    async def attach(self, channel: str, **fields: Any) -> Map:
        """ATTACH; the ATTACHED, or what came in its place."""
        await self.send({"action": 10, "channel": channel, **fields})
        return await self.next(
            lambda frame: frame["action"] in (ATTACHED, DETACHED, ERROR) and frame.get("channel") == channel
        )

    async def submit(self, channel: str, *messages: Map) -> int:
        """Send a MESSAGE frame; its number."""
        number, self._serial = self._serial, self._serial + 1
        frame = {"action": MESSAGE, "channel": channel, "msgSerial": number, "messages": list(messages)}
        await self.send(frame)
        return number

    async def answer(self) -> Map:
        """The next ACK or NACK."""
        return await self.action(ACK, NACK)

    async def publish(self, channel: str, *messages: Map) -> Map:
        """Publish; the ACK or NACK."""
        await self.submit(channel, *messages)
        return await self.answer()

    async def message(self) -> Map:
        """The next delivered message, of a frame with one."""
        frame = await self.action(MESSAGE)
        message: Map = frame["messages"][0]
        return message

    async def drop(self) -> None:
        """Lose the socket without a word."""
        self._websocket.transport.abort()
        await self._websocket.wait_closed()

    async def closed(self) -> None:
        """Wait until the server has closed the socket."""
        async with asyncio.timeout(TIMEOUT_S):
            await self._websocket.wait_closed()


@asynccontextmanager
async def client(url: str, fmt: Format = Format.JSON, **query: str) -> AsyncIterator[RawClient]:
    """A connected socket; what the server says first is still to be read."""
    params = {"key": KEY, "format": fmt.value, "v": "6", **query}
    text = "&".join(f"{name}={value}" for name, value in params.items() if value)
    address = url.replace("http://", "ws://")
    async with connect(f"{address}/?{text}", compression=None, max_size=None) as websocket:
        yield RawClient(websocket, fmt)


async def joined(raw: RawClient, channel: str, **fields: object) -> Map:
    """Connect and attach; the frame that says so."""
    assert (await raw.next())["action"] == CONNECTED
    attached = await raw.attach(channel, **fields)
    assert attached["action"] == ATTACHED
    return attached
