"""Connections that say nothing, half of something, or too much at once: each is answered or closed in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.gateway.raw import CONFIG
from tests.processes import Proc, Stack, wait_until
from tests.promptness import Stopwatch, prompt

LIMITS = """
[gateway]
request_timeout_ms = 700
max_idle_ms = 1500

[limits]
unfinished_per_address = 20
"""
UPGRADE = (
    "GET /?key=app.key:secret&v=6&x={url} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Long: {header}\r\n\r\n"
)


@pytest.fixture
async def gateway(stack: Stack) -> AsyncIterator[Proc]:
    yield await stack.gateway(config=LIMITS + CONFIG.replace("[gateway]\nmax_idle_ms = 1500\n", ""))


async def answer(gateway: Proc, *chunks: bytes, pause_s: float = 0.0) -> bytes:
    """The first bytes that come back; b"" when it is closed without a word. Raises TimeoutError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    reading = asyncio.create_task(reader.read(64))
    try:
        for chunk in chunks:
            # What is written after the answer would take it away: its end resets the connection.
            if reading.done():
                break
            writer.write(chunk)
            await asyncio.sleep(pause_s)  # a slow client
        return await asyncio.wait_for(reading, 20)
    except ConnectionError:
        return b""
    finally:
        reading.cancel()
        writer.close()


@prompt
async def test_silence_and_half_a_request_end_in_time(gateway: Proc) -> None:
    watch = Stopwatch()
    nothing, half, slow = await asyncio.gather(
        answer(gateway),
        answer(gateway, b"GET /healthz HT"),
        answer(gateway, *(b"GET /healthz HTTP/1.1\r\n", *[b"x: y\r\n"] * 30), pause_s=0.05),
    )
    assert nothing == b""
    assert half.startswith(b"HTTP/1.1 408")
    assert slow.startswith(b"HTTP/1.1 408")
    watch.assert_below(5)


async def test_a_second_request_has_its_time_from_its_first_byte(gateway: Proc) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for _ in range(2):
        writer.write(whole)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(1.0)  # idle for longer than a request may take
    writer.write(b"GET /hea")
    async with asyncio.timeout(5):
        assert (await reader.read(64)).startswith(b"HTTP/1.1 408")
    writer.close()


@pytest.mark.parametrize("size", [9_000, 16_000, 40_000])
@pytest.mark.parametrize("place", ["url", "header"])
async def test_an_upgrade_with_a_long_token_is_accepted(gateway: Proc, place: str, size: int) -> None:
    words = {"url": "x", "header": "x", place: "t" * size}
    assert (await answer(gateway, UPGRADE.format(**words).encode())).startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize(("place", "status"), [("url", b"414"), ("header", b"431")])
@prompt
async def test_one_that_is_too_long_is_refused_at_once(gateway: Proc, place: str, status: bytes) -> None:
    words = {"url": "x", "header": "x", place: "t" * 400_000}
    watch = Stopwatch()
    got = await answer(gateway, UPGRADE.format(**words).encode())
    assert got.startswith(b"HTTP/1.1 " + status)
    # Not only when the time for a request is over.
    watch.assert_below(3)


async def test_a_head_that_comes_at_once_and_is_too_long_is_refused_too(gateway: Proc) -> None:
    got = await answer(gateway, UPGRADE.format(url="x", header="t" * 70_000).encode())
    assert got.startswith((b"HTTP/1.1 431", b"HTTP/1.1 414"))


async def test_one_address_has_a_limited_number_of_silent_connections(gateway: Proc) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(20)]
    closed = await answer(gateway, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert closed == b""
    # Their time is over soon, and with it the limit.
    async with asyncio.timeout(5):
        await asyncio.gather(*(reader.read() for reader, _ in silent), return_exceptions=True)
    for _, writer in silent:
        writer.close()
    assert (await answer(gateway, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_a_client_that_speaks_tls_is_named_with_the_remedy_once(gateway: Proc) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64)
    assert (await answer(gateway, hello)).startswith(b"HTTP/1.1 400")
    assert (await answer(gateway, hello)).startswith(b"HTTP/1.1 400")
    await wait_until(lambda: "http.tls_on_plain_port" in gateway.log)
    assert gateway.log.count("tls: false") == 1
