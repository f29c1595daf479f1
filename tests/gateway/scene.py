"""One session's feed with readers whose frames are kept, and what can go wrong on its way."""

from __future__ import annotations

import json
from typing import Any

from gateway.background import Background
from gateway.fanout.delivery import Variant
from gateway.fanout.feed import SessionFeed
from gateway.fanout.hub import SessionHub
from gateway.fanout.log_follower import LogFollower
from gateway.fanout.subscription import Gap, Subscription
from gateway.metrics import Metrics
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns.withholding import NOTHING, Hidden
from selfhost_transport.wire.channel import RewindCount
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.message import Message

SESSION = "s"


Map = dict[str, Any]


class Reader:
    """A subscription's way out that keeps what it is given; it may be asked to be full."""

    def __init__(self, hidden: Hidden = NOTHING) -> None:
        self.congested = False
        self.frames: list[Map] = []
        self.gaps: list[Gap] = []
        self.subscription = Subscription(self, Variant(Format.JSON, SESSION, hidden), self.gaps.append)

    def write(self, frame: bytes) -> None:
        header = {126: 4, 127: 10}.get(frame[1], 2)
        self.frames.append(json.loads(frame[header:]))

    @property
    def messages(self) -> list[Map]:
        return [message for frame in self.frames for message in frame["messages"]]

    @property
    def text(self) -> str:
        """What a client makes of it: the newest whole text, and what was added since."""
        text, version = "", ""
        for message in self.messages:
            if message["version"]["serial"] <= version:
                continue
            version = message["version"]["serial"]
            text = text + message["data"] if message["action"] == 5 else message["data"]
        return text


class Scene:
    """A hub, its store, and one session."""

    def __init__(self, store: SessionStore, hub: SessionHub) -> None:
        self.store = store
        self.hub = hub

    async def create(self, data: str) -> Ref:
        published = await self.store.publish(SESSION, [Message(name="n", data=data)])
        return Ref(published.position)

    async def append(self, ref: Ref, *chunks: str) -> None:
        for chunk in chunks:
            await self.store.append(SESSION, ref, chunk)

    async def join(
        self,
        resume_from: str | None = None,
        hidden: Hidden = NOTHING,
        rewind: RewindCount | None = None,
    ) -> Reader:
        reader = Reader(hidden)
        feed = await self.hub.join(SESSION, reader.subscription)
        start = await self.hub.start_of(feed, reader.subscription, resume_from, rewind)
        for frame in start.preface:
            reader.write(frame)
        reader.subscription.release(start.backlog)
        return reader

    @property
    def follower(self) -> LogFollower:
        follower = self.hub.follower(SESSION)
        assert follower is not None
        return follower

    @property
    def feed(self) -> SessionFeed:
        feed = self.hub.feed(SESSION)
        assert feed is not None
        return feed


class Lossy:
    """A feed whose notifications can be lost on the way."""

    def __init__(self, scene: Scene, url: str) -> None:
        self.lost: list[bytes] = []
        self.losing = False
        self.tasks = Background("test")
        self.follower = LogFollower(SESSION, scene.store, self.tasks, Metrics())
        self.reader = Reader()
        self._channel = scene.store.keys.channel(SESSION)
        self._subscriber = Subscriber(url)

    async def __aenter__(self) -> Lossy:
        await self._subscriber.subscribe(self._channel, self._notified)
        await self.follower.start()
        self.follower.feed.add(self.reader.subscription)
        self.reader.subscription.release()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.close()
        await self._subscriber.close()

    def _notified(self, payload: bytes) -> None:
        if self.losing:
            self.lost.append(payload)
        else:
            self.follower.notify(payload)
