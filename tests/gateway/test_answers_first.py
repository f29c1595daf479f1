"""The answer to an input leaves its socket before anything the input has caused (the SDK's ChatTransport needs it)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.auth.callers import RequestInfo
from gateway.commands.burst import Burst
from gateway.commands.cancel_voting import CancelVoting
from gateway.commands.commands import ClientOperation, Done, woken_session
from gateway.commands.continuations import Continuations
from gateway.commands.executor import Executor
from gateway.fanout.feed import SessionFeed
from gateway.realtime.connection import Connection
from gateway.realtime.driver import ConnectionDriver
from gateway.services import Services, connect_services
from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET, load_settings
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position
from selfhost_transport.wire.tokens import ApiKey
from tests.processes import wait_until

SESSION = "chat:1"
ACK, MESSAGE, ATTACHED, PRESENCE = 1, 15, 11, 14
Map = dict[str, Any]


class Outlet:
    """Keeps the frames that leave."""

    congested = False

    key_prefix = ""

    def __init__(self) -> None:
        self.frames: list[Map] = []

    def write(self, frame: bytes) -> None:
        header = {126: 4, 127: 10}.get(frame[1], 2)
        self.frames.append(json.loads(frame[header:]))

    def ping(self) -> None:
        raise AssertionError("there is no clock")

    def close(self) -> None:
        raise AssertionError("the socket was closed")

    def abort(self) -> None:
        raise AssertionError("the socket was given up")

    @property
    def story(self) -> list[str]:
        """Names of messages and ACKs, in the order in which they left."""
        reported: list[str] = []
        for frame in self.frames:
            if frame["action"] == PRESENCE:
                reported += [f"presence of {member['clientId']}" for member in frame["presence"]]
            elif frame["action"] == ACK:
                reported += [f"ack {frame['msgSerial'] + index}" for index in range(frame["count"])]
            elif frame["action"] == MESSAGE:
                reported += [message["name"] for message in frame["messages"]]
        return reported


class EagerAgent(Executor):
    """Whatever an operation sets in motion has been fanned out before its answer is known."""

    def __init__(self, services: Services, feed: Callable[[], SessionFeed]) -> None:
        sessions, turns = services.sessions, services.turns
        continuations = Continuations(sessions, turns, services.inputs)
        voting = CancelVoting(services.hub, sessions)
        stores = (sessions, turns, services.presence, services.annotations)
        super().__init__(*stores, continuations, voting, services.metrics, Burst())
        self.services = services
        self.feed = feed

    async def run(self, operation: ClientOperation) -> Done:
        done = await super().run(operation)
        if woken_session(operation) is not None:
            await self.say("reply")
        return done

    async def say(self, name: str) -> Position:
        """An entry of another, seen by this gateway."""
        published = await self.services.sessions.publish(SESSION, [Message(name=name, data="x")])
        await self.feed().until_fanned_out(published.position)
        return published.position


class Scene:
    """A socket attached to SESSION."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.agent = EagerAgent(services, self._feed)
        services.executor = self.agent
        self.outlet = Outlet()
        key = ApiKey(DEV_KEY_NAME, DEV_KEY_SECRET)
        credential = services.authenticator.by_key(key, "alice", local=True)
        info = RequestInfo("/", {}, {}, "127.0.0.1", "127.0.0.1")
        core = Connection("connection", credential, services.terms(), services.rules_for)
        self.socket = ConnectionDriver(services, core, Format.JSON, echo=True, heartbeats=False, info=info)
        self._serial = 0

    async def open(self) -> None:
        self.socket.open(self.outlet, None)
        self.socket.receive(json.dumps({"action": 10, "channel": SESSION}))
        await wait_until(lambda: self.outlet.frames[-1]["action"] == ATTACHED)

    async def publish(self, name: str, **transport: str) -> None:
        message = {
            "name": name,
            "extras": {"ai": {"transport": transport, "codec": {"kind": "user-message"}}},
        }
        frame = {"action": MESSAGE, "channel": SESSION, "msgSerial": self._serial, "messages": [message]}
        self._serial += 1
        self.socket.receive(json.dumps(frame))

    async def ask(self, identity: str) -> None:
        ids = {"codec-message-id": identity, "event-id": f"event-{identity}"}
        await self.publish("ai-input", role="user", **ids)

    async def cancel(self, identity: str) -> None:
        await self.publish("ai-cancel", **{"event-id": "c", "input-codec-message-id": identity})

    async def tells(self, length: int) -> list[str]:
        await wait_until(lambda: len(self.outlet.story) >= length, what=str(self.outlet.story))
        return self.outlet.story

    def _feed(self) -> SessionFeed:
        feed = self.services.hub.feed(SESSION)
        assert feed is not None
        return feed


@pytest.fixture
async def scene(redis_url: str, redis_prefix: str) -> AsyncIterator[Scene]:
    settings = load_settings(None, redis=redis_url, redis_prefix=redis_prefix).for_dev()
    services = await connect_services(settings)
    scene = Scene(services)
    await scene.open()
    yield scene
    await scene.socket.lost()
    await services.close()


async def test_an_input_is_acknowledged_before_its_answer_comes(scene: Scene) -> None:
    await scene.ask("a")
    story = await scene.tells(3)
    assert story == ["ack 0", "ai-input", "reply"]


async def test_every_answer_waits_for_its_own_input(scene: Scene) -> None:
    for identity in "abc":
        await scene.ask(identity)
    story = await scene.tells(9)
    acks = [story.index(f"ack {serial}") for serial in range(3)]
    replies = [index for index, name in enumerate(story) if name == "reply"]
    assert all(reply > ack for ack, reply in zip(acks, replies, strict=True)), story


async def test_afterwards_entries_pass_at_once(scene: Scene) -> None:
    await scene.ask("a")
    await scene.tells(3)
    await scene.agent.say("later")
    assert scene.outlet.story[-1] == "later"


async def test_a_refused_input_holds_nothing_up(scene: Scene) -> None:
    await scene.publish("ai-input", role="user")
    await scene.agent.say("later")
    assert scene.outlet.story == ["later"]


async def test_p2_the_entries_of_a_cancel_still_leave_before_its_ack(scene: Scene) -> None:
    """The pause of a later input must not turn the order of entry and ACK around."""
    await scene.ask("a")
    await scene.tells(3)
    await scene.cancel("a")
    await scene.ask("b")
    story = await scene.tells(9)
    assert story.index("ai-cancel") < story.index("ack 1") < story.index("ack 2"), story
    assert story.index("ack 2") < len(story) - 1 - story[::-1].index("reply"), story


async def test_a_presence_change_is_acknowledged_after_its_own_event(scene: Scene) -> None:
    """The event is held back here, as while a gap of the log is being filled."""
    follower = scene.services.hub.follower(SESSION)
    assert follower is not None
    follower._pending = []
    scene.socket.receive(
        json.dumps({"action": PRESENCE, "channel": SESSION, "msgSerial": 0, "presence": [{"action": 2}]})
    )
    await wait_until(lambda: follower._pending, what="the event of the change")
    # Redis has answered before it published; the answer has been read, and has had time to leave.
    await scene.services.redis.command("PING")
    for _ in range(20):
        await asyncio.sleep(0)
    assert scene.outlet.story == []
    await follower._fill()
    assert await scene.tells(2) == ["presence of alice", "ack 0"]
