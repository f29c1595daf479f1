"""A gateway under random and damaged frames: it answers or closes, reveals nothing of itself, and leaks nothing (AUT-13, P10)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.wire.codec import Format, pack, unpack_map
from tests.processes import Proc, Stack, wait_until
from tests.wire.recordings import frames

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = """
[[keys]]
name = "app.key"
secret = "secret"

[[namespaces]]
id = "chat"
agent = "assistant"
"""
ANSWER_TIMEOUT_S = 30.0
GROWTH_BYTES = 24 * 2**20
LEAKED = re.compile(rb'Traceback|File \\?"|\.py\b|redis|line \d+, in', re.IGNORECASE)
QUICK = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@cache
def recorded(fmt: Format) -> list[bytes]:
    """Frames of the real SDKs, but for those that end a connection."""
    kept = [frame.raw for frame in frames("c2s") if frame.fmt is fmt and frame.wire["action"] not in (5, 7)]
    return [raw.encode() if isinstance(raw, str) else raw for raw in kept]


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
headers = st.fixed_dictionaries(
    {},
    optional={
        name: values | st.sampled_from(["user", "assistant", "true", "queue", "interrupt", "x"])
        for name in ("role", "run-id", "codec-message-id", "turn-policy", "cancel-own", "parent", "event-id")
    },
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["ai-input", "ai-cancel", "ai-output", "ai-run-end", "n"]) | values,
        "data": values,
        "encoding": st.sampled_from(["json", "base64", "utf-8/base64", "cipher"]) | values,
        "id": values,
        "clientId": values,
        "action": st.integers(-1, 7) | values,
        "serial": values | st.just("01700000000000-000@aaaaaaaaaa:000"),
        "version": values,
        "extras": values | st.fixed_dictionaries({"ai": st.fixed_dictionaries({"transport": headers})}),
    },
)
channels = st.sampled_from(["chat:fuzz", "plain:fuzz", "[?rewind=5]plain:fuzz", ":bad", "[x]y", ""]) | values
structured = st.fixed_dictionaries(
    {"action": st.sampled_from([0, 1, 4, 10, 11, 12, 14, 15, 16, 17, 19, 21, 99]) | values},
    optional={
        "channel": channels,
        "channelSerial": values | st.just("01700000000000-000@aaaaaaaaaa"),
        "msgSerial": st.integers(-2, 2**64) | values,
        "id": values,
        "flags": st.integers(-1, 2**40) | values,
        "params": values | st.fixed_dictionaries({"rewind": values, "modes": values}),
        "messages": st.lists(messages, max_size=3) | values,
        "presence": st.lists(messages, max_size=3) | values,
        "auth": values | st.fixed_dictionaries({"accessToken": values}),
        "connectionId": values,
    },
)


@st.composite
def damaged(draw: st.DrawFn, fmt: Format) -> bytes:
    """A recorded frame with some bytes replaced, removed or added."""
    raw = bytearray(draw(st.sampled_from(recorded(fmt))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        raw[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(raw)


def packed(value: Any, fmt: Format) -> bytes | None:
    """The frame as it is sent; None for what the format cannot carry."""
    try:
        return pack(value, fmt)
    except Exception:
        return None


def inputs(fmt: Format) -> st.SearchStrategy[list[bytes]]:
    """Frames that can be read, then some that may not be: those mostly end the connection."""
    made = structured.map(lambda value: packed(value, fmt) or b"{}")
    readable = st.lists(made | st.sampled_from(recorded(fmt)), max_size=10)
    return st.builds(list.__add__, readable, st.lists(st.binary(max_size=200) | damaged(fmt), max_size=2))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Proc]:
    stack = Stack(redis_server.url, "fuzz", tmp_path_factory.mktemp("fuzz"))
    try:
        yield await stack.gateway(config=CONFIG)
    finally:
        await stack.close()


async def converse(url: str, fmt: Format, raws: list[bytes]) -> None:
    """Send everything; then a ping must be answered, or the socket must have been closed with a word."""
    address = f"{url.replace('http', 'ws', 1)}/?key=app.key:secret&clientId=fuzz&format={fmt}"
    last: dict[str, Any] = {}
    async with (
        connect(address, compression=None, max_size=None) as websocket,
        asyncio.timeout(ANSWER_TIMEOUT_S),
    ):
        try:
            for raw in raws:
                text = fmt is Format.JSON
                await websocket.send(raw.decode(errors="replace") if text else raw)
            ping = pack({"action": 0, "id": "still there?"}, fmt)
            await websocket.send(ping.decode() if fmt is Format.JSON else ping)
            while last.get("id") != "still there?":
                got = await websocket.recv()
                assert not LEAKED.search(got.encode() if isinstance(got, str) else got), got
                last = unpack_map(got, fmt)
        except ConnectionClosed:
            # ERROR without a channel, DISCONNECTED, or CLOSED came first.
            assert last.get("action") in (6, 8, 9), f"closed without a word after {last}"


async def held(gateway: Proc) -> tuple[float, float]:
    """Open connections and subscribed sessions, by its own metrics."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{gateway.url}/metrics")).text
    found = {name: float(value) for name, value in re.findall(r"^(sht_gateway_\w+) ([\d.e+]+)$", text, re.M)}
    return found["sht_gateway_connections"], found["sht_gateway_sessions"]


@pytest.mark.parametrize("fmt", [Format.JSON, Format.MSGPACK])
async def test_damaged_frames_harm_no_one(gateway: Proc, fmt: Format) -> None:
    process = psutil.Process(gateway.pid)
    examples: list[list[bytes]] = []

    @QUICK
    @given(inputs(fmt))
    def collect(raws: list[bytes]) -> None:
        examples.append(raws)

    collect()
    await asyncio.gather(*(converse(gateway.url, fmt, raws) for raws in examples[:10]))
    warm = process.memory_info().rss
    for start in range(0, len(examples), 10):
        await asyncio.gather(*(converse(gateway.url, fmt, raws) for raws in examples[start : start + 10]))

    async def quiet() -> bool:
        return await held(gateway) == (0.0, 0.0)

    await wait_until(quiet, 60.0, "connections and sessions are let go")
    assert gateway.returncode is None
    assert process.memory_info().rss - warm < GROWTH_BYTES
    assert not [line for line in gateway.lines if "Traceback" in line or "ERROR" in line], gateway.log
