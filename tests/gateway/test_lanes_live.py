"""Lanes with a real Redis and a real socket: gaps are filled, a full socket keeps the order, a reader that joins is in it."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from functools import partial
from typing import Any

import pytest

from gateway.background import Background
from gateway.fanout.inbox import Inbox
from gateway.fanout.log_follower import LogFollower
from gateway.metrics import Metrics
from gateway.websocket.protocol import RawSocket
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport.accelerator import SendBuffer, Way, native
from selfhost_transport.redis_io.subscriber import Subscriber
from tests.gateway.ears import Ear
from tests.gateway.scene import SESSION, Reader, Scene
from tests.processes import wait_until


class Websocket(Reader):
    """A reader with the buffer of a websocket, whose frames come joined."""

    def __init__(self, write_batch: WriteBatch) -> None:
        super().__init__()
        self._write_batch = write_batch
        self.buffer = SendBuffer(self._split)

    def write(self, frame: bytes) -> None:
        if self._write_batch.open:
            self.buffer.add(frame, self._write_batch.buffers)
        else:
            self._split(frame)

    def _split(self, joined: bytes) -> None:
        while joined:
            header, size = 2, joined[1]
            if size == 126:
                header, size = 4, int.from_bytes(joined[2:4], "big")
            self.frames.append(json.loads(joined[header : header + size]))
            joined = joined[header + size :]


class Losing(Inbox):
    """An inbox that what comes can be lost before."""

    losing = False
    lost = 0

    def hand_out(self, replies: list[Any], at: int, callbacks: dict[bytes, Any]) -> int:
        if self.losing and at < len(replies):
            self.lost += len(replies) - at
            return len(replies)
        return super().hand_out(replies, at, callbacks)


class Live:
    """A session that is followed by a subscriber of its own."""

    def __init__(self, scene: Scene, url: str) -> None:
        self.write_batch = WriteBatch()
        self.inbox = Losing(self.write_batch, Metrics())
        self.tasks = Background("test")
        self.follower = LogFollower(SESSION, scene.store, self.tasks, Metrics())
        self.feed = self.follower.feed
        self.feed.write_batch = self.write_batch
        self.way = self.feed.way = Way(partial(self.inbox.add, self.follower))
        self._channel = scene.store.keys.channel(SESSION)
        self._subscriber = Subscriber(url, batch=self.inbox)

    async def __aenter__(self) -> Live:
        await self._subscriber.subscribe(self._channel, self.way)
        await self.follower.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.close()
        await self._subscriber.close()

    def join(self) -> Websocket:
        reader = Websocket(self.write_batch)
        self.feed.add(reader.subscription)
        reader.subscription.release()
        return reader

    def data(self, reader: Reader) -> list[str]:
        return [message["data"] for message in reader.messages]


async def test_a_gap_behind_a_lane_is_filled_from_the_log(scene: Scene, redis_url: str) -> None:
    async with Live(scene, redis_url) as live:
        reader = live.join()
        ref = await scene.create("0")
        await scene.append(ref, *"1234")
        await wait_until(lambda: live.data(reader) == list("01234"))
        assert live.way.lane is not None
        live.inbox.losing = True
        await scene.append(ref, *"56")
        await wait_until(lambda: live.inbox.lost == 2)
        live.inbox.losing = False
        await scene.append(ref, *"789")
        await wait_until(lambda: len(live.data(reader)) == 10)
        assert live.data(reader) == list("0123456789")
        assert not reader.gaps


async def test_appends_go_on_in_order_while_the_log_is_compared(scene: Scene, redis_url: str) -> None:
    async with Live(scene, redis_url) as live:
        reader = live.join()
        ref = await scene.create("")
        expected = [str(number) for number in range(120)]
        in_lane = 0
        for number, text in enumerate(expected):
            if number % 17 == 11:
                live.follower.compare()
                assert live.way.lane is None
            if number % 17 == 15:
                await wait_until(lambda: not live.follower.reads)
            await scene.append(ref, text)
            in_lane += live.way.lane is not None
        await wait_until(lambda: len(live.data(reader)) >= len(expected) + 1)
        assert live.data(reader)[1:] == expected
        assert in_lane > 20


async def test_who_joins_and_leaves_is_in_the_lane_from_then_on_and_until_then(
    scene: Scene, redis_url: str
) -> None:
    async with Live(scene, redis_url) as live:
        first = live.join()
        ref = await scene.create("")
        await scene.append(ref, *"123")
        await wait_until(lambda: len(live.data(first)) == 4)
        second = live.join()
        await scene.append(ref, *"456")
        await wait_until(lambda: len(live.data(first)) == 7 and second.text == "123456")
        live.feed.remove(first.subscription)
        await scene.append(ref, *"789")
        await wait_until(lambda: second.text == "123456789")
        assert live.data(first)[1:] == list("123456")


@pytest.mark.parametrize("seed", range(3))
async def test_all_that_is_written_arrives_in_order_however_slowly_it_is_read(seed: int) -> None:
    """In batches and outside of them; the socket is full again and again, and free again and again."""
    source, loop = random.Random(seed), asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    theirs.setblocking(False)
    ear, tasks, write_batch, connections = Ear(), Background("test"), WriteBatch(), set[Any]()
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
    raw = RawSocket(transport, connections, 1000)
    transport.set_protocol(raw)
    raw.start(ear, tasks, 20_000, write_batch)
    written, received = bytearray(), bytearray()
    sent_directly = waited = 0

    async def read(some: int) -> None:
        received.extend(await loop.sock_recv(theirs, some))

    for number in range(4000):
        frames = [b"%d." % number * source.randrange(1, 80) for _ in range(source.randrange(3))]
        if source.random() < 0.8:
            with write_batch:
                for frame in frames:
                    raw.write(frame)
            sent_directly += raw.buffer.fd >= 0
            waited += raw.buffer.fd < 0
        else:
            for frame in frames:
                raw.write(frame)
        written += b"".join(frames)
        if len(written) - len(received) > 150_000:
            while len(received) < len(written):
                await read(100_000)
        elif len(written) - len(received) > 120_000 and source.random() < 0.1:
            await read(5000)
    while len(received) < len(written):
        await read(1 << 20)
    assert received == written
    assert waited > 50
    assert sent_directly > 50 if native is not None else not sent_directly
    assert ear.heard.count("(full)") > 2
    assert ear.heard.count("(full)") - ear.heard.count("(room)") in (0, 1)
    raw.abort()
    assert raw.buffer.fd == -1
    await wait_until(lambda: not connections)
    assert raw.closed and raw.buffer.closed
    theirs.close()
    await tasks.close()


@pytest.mark.skipif(native is None, reason="the compiled accelerator sends by itself")
async def test_a_descriptor_is_given_up_with_its_socket() -> None:
    """The next connection may get the same number."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
    raw = RawSocket(transport, set(), 1000)
    transport.set_protocol(raw)
    write_batch = WriteBatch()
    raw.start(Ear(), Background("test"), 20_000, write_batch)
    assert raw.buffer.fd == ours.fileno()
    with write_batch:
        raw.write(b"x")
    assert await loop.sock_recv(_nonblocking(theirs), 10) == b"x"
    theirs.close()
    await wait_until(lambda: raw.closed)
    assert raw.buffer.fd == -1
    await wait_until(lambda: ours.fileno() == -1)


@pytest.mark.skipif(native is None, reason="the compiled accelerator sends by itself")
async def test_the_compiled_form_leaves_the_transport_out_while_the_socket_takes_all() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
    raw = RawSocket(transport, set(), 1000)
    transport.set_protocol(raw)
    write_batch = WriteBatch()
    raw.start(Ear(), Background("test"), 20_000, write_batch)
    written: list[bytes] = []
    raw._transport = _Noting(transport, written)  # type: ignore[assignment]
    with write_batch:
        raw.write(b"together ")
        raw.write(b"again")
    assert (await loop.sock_recv(_nonblocking(theirs), 100), written) == (b"together again", [])
    raw.write(b"alone")
    assert (await loop.sock_recv(theirs, 100), written) == (b"alone", [b"alone"])
    transport.abort()
    await wait_until(lambda: raw.closed)
    theirs.close()


class _Noting:
    def __init__(self, transport: asyncio.Transport, written: list[bytes]) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _nonblocking(other: socket.socket) -> socket.socket:
    other.setblocking(False)
    return other
