"""A real gateway under made-up frames, over websockets and over HTTP requests: no error of its own, no growth."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Awaitable, Callable
from itertools import islice

import httpx
import psutil
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from selfhost_transport.wire.codec import Format
from tests.gateway.hostile_frames import HostileFrames
from tests.gateway.raw import KEY
from tests.processes import Proc, Stack, wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
CONNECTIONS = 1_500 if LONG else 40
"""In each format, and over HTTP requests."""
FRAMES = 40
"""Of one connection."""
AT_ONCE = 8
GROWTH_BYTES = 32 * 2**20
CONFIG = """
[[keys]]
name = "app.key"
secret = "secret"

[[namespaces]]
id = "chat"
agent = "assistant"

[[namespaces]]
id = "bound"
agent = "assistant"
policy = "queue"

[[namespaces]]
id = "veiled"
withhold = ["reasoning"]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(site: Stack) -> Proc:
    return await site.gateway(config=CONFIG)


async def over_websocket(gateway: Proc, frames: list[str | bytes], fmt: Format) -> None:
    address = f"{gateway.url.replace('http', 'ws', 1)}/?key={KEY}&clientId=fuzz&format={fmt}&v=6"
    async with connect(address, compression=None, max_size=None) as websocket:
        reading = asyncio.create_task(_read_all(websocket))
        with contextlib.suppress(ConnectionClosed):
            for frame in frames:
                await websocket.send(frame)
            await websocket.send('{"action":7}' if fmt is Format.JSON else b"\x81\xa6action\x07")
        async with asyncio.timeout(20):
            await reading


async def _read_all(websocket: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await websocket.recv()


async def over_requests(gateway: Proc, frames: list[str | bytes], fmt: Format) -> None:
    credentials = {"key": KEY, "clientId": "fuzz"}
    async with httpx.AsyncClient(base_url=f"{gateway.url}/comet", params=credentials, timeout=20.0) as http:
        begun = (await http.get("connect", params={"stream": "false", "v": "6"})).json()
        key = begun[0]["connectionDetails"]["connectionKey"]
        for start in range(0, len(frames), 5):
            body = "[" + ",".join(map(str, frames[start : start + 5])) + "]"
            sent = await http.post(
                f"{key}/send",
                content=body.encode("utf-8", "replace"),
                headers={"content-type": "application/json"},
            )
            assert sent.status_code < 500, sent.text
        closed = await http.post(f"{key}/close")
        assert closed.status_code < 500, closed.text


Way = Callable[[Proc, list[str | bytes], Format], Awaitable[None]]


@pytest.mark.parametrize(
    ("way", "fmt"),
    [(over_websocket, Format.JSON), (over_websocket, Format.MSGPACK), (over_requests, Format.JSON)],
    ids=["websocket-json", "websocket-msgpack", "comet"],
)
async def test_no_frame_makes_an_error_of_the_gateways_own(gateway: Proc, way: Way, fmt: Format) -> None:
    frames = HostileFrames(fmt, 5)
    process = psutil.Process(gateway.pid)

    async def some(count: int) -> None:
        for _ in range(count // AT_ONCE):
            await asyncio.gather(*(way(gateway, list(islice(frames, FRAMES)), fmt) for _ in range(AT_ONCE)))

    await some(CONNECTIONS // 4)
    warm = process.memory_info().rss
    await some(CONNECTIONS - CONNECTIONS // 4)
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{gateway.url}/healthz")).status_code == 200

        async def is_let_go() -> bool:
            reported = (await http.get(f"{gateway.url}/metrics")).text
            found = re.findall(r"^sht_gateway_(?:connections|sessions) ([\d.e+]+)$", reported, re.M)
            return [float(value) for value in found] == [0.0, 0.0]

        await wait_until(is_let_go, 15.0, "connections and sessions are let go")
    assert process.memory_info().rss - warm < GROWTH_BYTES
    assert not [line for line in gateway.lines if "Traceback" in line or "ERROR" in line], gateway.log
