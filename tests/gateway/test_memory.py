"""What a connection occupies: little while it is idle, nothing once it is gone."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import psutil
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from gateway.auth.callers import RequestInfo
from gateway.background import Background
from gateway.fanout.subscription import Subscription
from gateway.http_api.reader import SessionReader
from gateway.realtime.connection import Connection
from gateway.realtime.driver import ConnectionDriver
from gateway.services import Services, connect_services
from gateway.websocket.protocol import RawSocket
from gateway.websocket.upgrade import RawWebSocket, raw_websocket
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET, load_settings
from selfhost_transport.turns.inputs import InputIds, user_message
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.tokens import ApiKey
from tests.gateway.ears import Wire
from tests.gateway.masked_frames import sent
from tests.gateway.raw import ATTACHED, CONFIG, CONNECTED, client
from tests.processes import Stack, wait_until

WARM, IDLE = 50, 200
MOST_BYTES = 32 * 1024
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n\r\n"
)


@pytest.fixture
async def services(redis_url: str, redis_prefix: str) -> AsyncIterator[Services]:
    settings = load_settings(None, redis=redis_url, redis_prefix=redis_prefix).for_dev()
    services = await connect_services(settings)
    yield services
    await services.close()


def parts() -> Counter[str]:
    """What there is of connections."""
    kinds = (Subscription, Connection, RawSocket, ConnectionDriver)
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in kinds)


async def test_an_idle_attached_connection_is_light(stack: Stack) -> None:
    # They all come at once, and are one client to the limit.
    gateway = await stack.gateway(config=CONFIG + "\n[limits]\nnew_sessions_per_s = 0\n")
    process = psutil.Process(gateway.pid)
    async with AsyncExitStack() as clients:

        async def attach(number: int) -> None:
            raw = await clients.enter_async_context(client(gateway.url))
            assert (await raw.next())["action"] == CONNECTED
            assert (await raw.attach(f"plain:{number}"))["action"] == ATTACHED

        # What is made once is paid for by the first ones.
        await asyncio.gather(*(attach(number) for number in range(WARM)))
        before = process.memory_info().rss
        for first in range(WARM, WARM + IDLE, WARM):
            await asyncio.gather(*(attach(number) for number in range(first, first + WARM)))
        assert (process.memory_info().rss - before) / IDLE < MOST_BYTES


async def test_a_connection_that_is_gone_leaves_nothing_to_collect(services: Services) -> None:
    tasks, wire = Background("test"), Wire()

    async def live() -> None:
        credential = services.authenticator.by_key(ApiKey(DEV_KEY_NAME, DEV_KEY_SECRET), "alice", local=True)
        core = Connection("connection", credential, services.terms(), services.rules_for)
        socket = ConnectionDriver(
            services,
            core,
            Format.JSON,
            echo=True,
            heartbeats=True,
            info=RequestInfo("/", {}, {}, "127.0.0.1", "127.0.0.1"),
            on_end=lambda socket: None,
        )
        outlet = RawSocket(wire, set(), 1000)
        socket.open(outlet, None)
        outlet.start(socket, tasks, 1000, WriteBatch())
        attach = sent(1, json.dumps({"action": ATTACHED - 1, "channel": "plain:1"}).encode())
        outlet.get_buffer(-1)[: len(attach)] = attach
        outlet.buffer_updated(len(attach))
        await wait_until(lambda: b'"action":11' in wire.written)
        assert parts() - before == Counter(Subscription=1, Connection=1, RawSocket=1, ConnectionDriver=1)
        outlet.connection_lost(None)
        await socket.lost()

    gc.collect()
    before = parts()
    gc.disable()
    try:
        await live()
        assert parts() == before
    finally:
        gc.enable()


async def test_an_upgrade_leaves_nothing_to_collect() -> None:
    kept: list[weakref.ref[Any]] = []
    sockets: list[RawSocket] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        protocol = raw_websocket(scope)
        assert protocol is not None
        await receive()
        await send({"type": "websocket.accept"})
        kept.extend((weakref.ref(protocol.conn), weakref.ref(protocol)))
        sockets.append(protocol.hand_over())

    class Upgradable(Wire):
        def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
            """The next one's."""

        def is_closing(self) -> bool:
            return False

    async def upgrade() -> None:
        config = Config(application, ws=RawWebSocket, log_config=None)
        config.load()
        protocol = RawWebSocket(config, ServerState(), {})
        protocol.connection_made(Upgradable())
        protocol.data_received(UPGRADE)
        await wait_until(lambda: sockets)
        await wait_until(lambda: not protocol.tasks)

    gc.disable()
    try:
        await upgrade()
        assert [ref() for ref in kept] == [None, None]
    finally:
        gc.enable()
        sockets.pop().connection_lost(None)


async def test_a_session_that_was_read_for_a_response_leaves_nothing_to_collect(services: Services) -> None:
    credential = services.authenticator.by_key(ApiKey(DEV_KEY_NAME, DEV_KEY_SECRET), "alice", local=True)

    async def read() -> weakref.ref[Node]:
        asked = user_message([TextPart("hello")], InputIds(), client_id="alice")
        await services.sessions.publish("read", asked)
        async with SessionReader(services, credential, "read", lambda tree: False) as reader:
            (node,) = reader.tree.nodes()
            return weakref.ref(node)

    gc.disable()
    try:
        node = await read()
        await wait_until(lambda: node() is None)
    finally:
        gc.enable()
