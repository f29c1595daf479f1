"""Presence on real gateways that are killed, frozen and stopped; members survive or leave exactly once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.wire.actions import Action, Flag, PresenceAction
from tests.processes import Proc, Stack

KEY = "app.key:a-secret-of-the-tests"
CONFIG = """
[[keys]]
name = "app.key"
secret = "a-secret-of-the-tests"
capability = { "*" = ["*"] }
"""
LEASE_MS = 600
ENV = {f"{ENV_PREFIX}PRESENCE_LEASE_MS": str(LEASE_MS)}
ENTER, LEAVE = PresenceAction.ENTER, PresenceAction.LEAVE


class Client:
    """One websocket speaking JSON frames."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.connection_id = ""
        self.key = ""
        self.serial = 0
        # Frames that came while another kind was awaited.
        self.passed: list[dict[str, Any]] = []

    async def send(self, action: Action, **fields: Any) -> None:
        await self.socket.send(json.dumps({"action": int(action), **fields}))

    async def expect(self, *actions: Action, timeout: float = 10.0) -> dict[str, Any]:
        """The next frame of one of these kinds; others are kept for later."""
        for frame in self.passed:
            if frame["action"] in actions:
                self.passed.remove(frame)
                return frame
        async with asyncio.timeout(timeout):
            while True:
                received: dict[str, Any] = json.loads(await self.socket.recv())
                if received["action"] in actions:
                    return received
                self.passed.append(received)

    async def attach(self, channel: str, **fields: Any) -> dict[str, Any]:
        await self.send(Action.ATTACH, channel=channel, **fields)
        return await self.expect(Action.ATTACHED)

    async def announce(self, channel: str, action: PresenceAction, **fields: Any) -> None:
        presence = [{"action": int(action), **fields}]
        await self.send(Action.PRESENCE, channel=channel, msgSerial=self.serial, presence=presence)
        self.serial += 1
        await self.expect(Action.ACK)

    async def reported(self, timeout: float = 10.0) -> tuple[int, str, str | None]:
        """The next presence event: action, client id, data."""
        (event,) = (await self.expect(Action.PRESENCE, timeout=timeout))["presence"]
        return event["action"], event["clientId"], event.get("data")


@asynccontextmanager
async def client(gateway: Proc, client_id: str, **query: str) -> AsyncIterator[Client]:
    parameters = urlencode({"key": KEY, "clientId": client_id, "v": "6", "heartbeats": "false", **query})
    async with connect(f"ws://127.0.0.1:{gateway.port}/?{parameters}") as socket:
        one = Client(socket)
        connected = await one.expect(Action.CONNECTED)
        one.connection_id, one.key = connected["connectionId"], connected["connectionKey"]
        assert "error" not in connected
        yield one


@pytest.fixture
async def gateways(stack: Stack) -> tuple[Proc, Proc]:
    first, second = await asyncio.gather(*(stack.gateway(config=CONFIG, env=ENV) for _ in range(2)))
    return first, second


async def test_members_of_a_killed_gateway_leave_once(gateways: tuple[Proc, Proc]) -> None:
    first, second = gateways
    async with client(second, "watcher") as watcher:
        await watcher.attach("room")
        with pytest.raises(ConnectionClosed):
            async with client(first, "ann", remainPresentFor="1000") as ann:
                await ann.attach("room")
                await ann.announce("room", ENTER, data="last words")
                assert await watcher.reported() == (ENTER, "ann", "last words")
                first.kill()
                while True:
                    await ann.socket.recv()
        assert await watcher.reported() == (LEAVE, "ann", "last words")
        await watcher.announce("room", ENTER)
        assert await watcher.reported() == (ENTER, "watcher", None)


async def test_a_stopped_gateway_hands_its_members_over(gateways: tuple[Proc, Proc]) -> None:
    first, second = gateways
    async with client(second, "watcher") as watcher:
        await watcher.attach("room")
        async with client(first, "ann", remainPresentFor="1500") as ann:
            await ann.attach("room")
            await ann.announce("room", ENTER)
            assert await watcher.reported() == (ENTER, "ann", None)
            first.terminate()
            gone = await ann.expect(Action.DISCONNECTED)
            assert gone["error"]["code"] == 80003
        async with client(second, "bob", remainPresentFor="1500") as bob:
            await bob.attach("room")
            await bob.announce("room", ENTER)
            assert await watcher.reported() == (ENTER, "bob", None)
            async with client(second, "ann", resume=ann.key) as back:
                assert back.connection_id == ann.connection_id
                attached = await back.attach("room")
                assert attached["flags"] & Flag.HAS_PRESENCE
                # Lost after ann came back, for as long: had ann been due, she would have left before.
                await bob.socket.close()
                assert await watcher.reported() == (LEAVE, "bob", None)
                await back.send(Action.CLOSE)
                assert await watcher.reported(timeout=1.0) == (LEAVE, "ann", None)


async def test_a_frozen_gateway_sends_those_whose_members_left_back_in(gateways: tuple[Proc, Proc]) -> None:
    first, second = gateways
    async with client(second, "watcher") as watcher, client(first, "ann", remainPresentFor="1000") as ann:
        await watcher.attach("room")
        await ann.attach("room")
        await ann.announce("room", ENTER)
        assert await watcher.reported() == (ENTER, "ann", None)
        first.pause()
        assert await watcher.reported() == (LEAVE, "ann", None)
        first.proceed()
        gone = await ann.expect(Action.DISCONNECTED)
        assert (gone["error"]["code"], gone["error"]["statusCode"]) == (80003, 400)
        async with client(first, "ann", resume=ann.key) as back:
            await back.attach("room")
            await back.announce("room", ENTER, id=f"{ann.connection_id}:0:0")
            assert await watcher.reported() == (ENTER, "ann", None)


async def test_a_frozen_gateway_keeps_members_that_had_time(gateways: tuple[Proc, Proc]) -> None:
    first, second = gateways
    async with client(second, "watcher") as watcher, client(first, "ann", remainPresentFor="60000") as ann:
        await watcher.attach("room")
        await ann.attach("room")
        await ann.announce("room", ENTER)
        async with client(first, "bob", remainPresentFor="1000") as bob:
            await bob.attach("room")
            await bob.announce("room", ENTER)
            first.pause()
            for expected in ((ENTER, "ann"), (ENTER, "bob"), (LEAVE, "bob")):
                assert (await watcher.reported())[:2] == expected
            first.proceed()
            await bob.expect(Action.DISCONNECTED)
        await ann.announce("room", PresenceAction.UPDATE, data="still here")
        assert await watcher.reported() == (PresenceAction.UPDATE, "ann", "still here")


async def test_what_an_attachment_gets_follows_its_modes(gateways: tuple[Proc, Proc]) -> None:
    async with client(gateways[0], "ann") as ann, client(gateways[0], "bob") as bob:
        await ann.attach("room", flags=int(Flag.PRESENCE | Flag.PUBLISH))
        await bob.attach("room")
        await bob.announce("room", ENTER)
        await ann.send(
            Action.MESSAGE, channel="room", msgSerial=0, messages=[{"name": "unheard", "data": "x"}]
        )
        await bob.expect(Action.MESSAGE)
        await ann.send(
            Action.PRESENCE, channel="room", msgSerial=1, presence=[{"action": int(ENTER), "data": "mine"}]
        )
        heard = await ann.expect(Action.PRESENCE, Action.MESSAGE, Action.SYNC)
        assert [event["clientId"] for event in heard["presence"]] == ["ann"]


async def test_every_attach_begins_with_the_members(
    gateways: tuple[Proc, Proc],
) -> None:
    async with client(gateways[0], "ann") as ann, client(gateways[1], "bob") as bob:
        empty = await ann.attach("room")
        assert not empty["flags"] & Flag.HAS_PRESENCE
        await ann.announce("room", ENTER, data="d")
        for _ in range(2):
            attached = await bob.attach("room")
            assert attached["flags"] & Flag.HAS_PRESENCE
            sync = await bob.expect(Action.SYNC)
            assert sync["channelSerial"].endswith(":")
            (member,) = sync["presence"]
            assert member["id"] == f"{ann.connection_id}:0:0" and member["timestamp"]
            assert (member["action"], member["connectionId"], member["data"]) == (1, ann.connection_id, "d")
        await bob.send(Action.SYNC, channel="room")
        assert (await bob.expect(Action.SYNC))["presence"] == [member]


async def test_batch_presence_and_status_count_members(gateways: tuple[Proc, Proc]) -> None:
    first, second = gateways
    async with client(first, "ann") as ann:
        await ann.attach("room")
        await ann.announce("room", ENTER, data="d")
        async with httpx.AsyncClient(base_url=second.url, auth=httpx.BasicAuth(*KEY.split(":"))) as http:
            batch = (await http.get("/presence", params={"channels": "room,empty,:bad"})).json()
            status = (await http.get("/channels/room")).json()
            refused = await http.get("/channels/room/presence", params={"cursor": "%%%"})
            refused_event = await http.get("/channels/room/presence/history", params={"cursor": "x"})
    assert (batch["successCount"], batch["failureCount"]) == (2, 1)
    room, empty, bad = batch["results"]
    assert [member["clientId"] for member in room["presence"]] == ["ann"]
    assert empty == {"channel": "empty", "presence": []}
    assert bad["error"]["code"] == 40010
    assert status["status"]["occupancy"]["metrics"]["presenceMembers"] == 1
    assert {response.status_code for response in (refused, refused_event)} == {400}
