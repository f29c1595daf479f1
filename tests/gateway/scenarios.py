"""Random lives of a session, played to followers that have to give their readers the same."""

from __future__ import annotations

import random
from collections.abc import Callable

from gateway.background import Background
from gateway.fanout.delivery import Variant
from gateway.fanout.feed import SessionFeed
from gateway.fanout.log_follower import LogFollower
from gateway.fanout.selection import MUTE_ALL
from gateway.fanout.subscription import DeliveryState, Subscription
from gateway.metrics import Metrics
from selfhost_transport.store.entries import (
    MessageOperation,
    Ref,
    pack_append_body,
    pack_created,
    pack_replaced_body,
)
from selfhost_transport.store.session_store import Head, SessionStore
from selfhost_transport.turns.withholding import NOTHING, Traffic
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position

SESSION = "s"
EPOCH = "abc0123xyz"


class LongWay(SessionFeed):
    """A feed that never takes the short way."""

    __slots__ = ()

    def _shorten(self) -> None:
        pass


class Reader:
    """An outlet that keeps what it is given."""

    def __init__(self, variant: Variant, mute: str | None) -> None:
        self.congested = False
        self.frames: list[bytes] = []
        self.subscription = Subscription(self, variant, lambda gap: None, mute=mute)

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)


class Side:
    """A follower that is handed its notifications, and its readers."""

    def __init__(self, store: SessionStore, tasks: Background, kind: type[SessionFeed]) -> None:
        self.metrics = Metrics()
        self.follower = LogFollower(SESSION, store, tasks, self.metrics)
        self.feed = self.follower.feed = kind(SESSION, store, tasks, self.metrics)
        self.readers: list[Reader] = []
        # As `start` does, with an end of the log that is given.
        self.follower._reset(Head(EPOCH, Position.ZERO, Position.ZERO))
        self.follower._pending = None

    def notify(self, payload: bytes) -> None:
        self.follower.notify(payload)

    def reader(self, variant: Variant, mute: str | None) -> Reader:
        return Reader(variant, mute)

    def join(self, variant: Variant, mute: str | None) -> None:
        reader = self.reader(variant, mute)
        self.readers.append(reader)
        self.feed.add(reader.subscription)
        reader.subscription.release()


class Scenario:
    """Random entries and changes of who watches, the same on both sides."""

    def __init__(self, source: random.Random, sides: list[Side], *, with_whole: bool = False) -> None:
        # A reader of whole states keeps its session from the short way.
        self.with_whole = with_whole
        self.source = source
        self.sides = sides
        self.last = Position.ZERO
        self.messages: list[Ref] = []
        self.paused: set[int] = set()

    def notify(self, entry: bytes) -> Position:
        position = Position(self.last.ms + self.source.randrange(1, 3), self.source.randrange(1000))
        payload = f"{position.stream_id} {self.last.stream_id} ".encode() + entry
        self.last = position
        asks = self.source.random() < 0.3
        for side in self.sides:
            side.notify(payload)
            # Not each time: whether it was asked for must make no difference.
            assert not asks or side.feed.position == position
        return position

    def create(self) -> None:
        message = Message(
            name="n", data=self.source.choice(("", "begun")), connection_id=self.source.choice(("c1", "c2")),
            extras={"headers": {"kind": "text"}},
        )  # fmt: skip
        self.messages.append(Ref(self.notify(pack_created([message]))))

    def append(self) -> None:
        for _ in range(self.source.randrange(1, 12)):
            self._append_one(self.messages[-1], self.source.choice(("a", "é\n", '"' * 40, "x" * 300)))

    def append_elsewhere(self) -> None:
        self._append_one(self.source.choice(self.messages[-3:]), "elsewhere")

    def _append_one(self, ref: Ref, text: str, operation: MessageOperation | None = None) -> None:
        body = pack_append_body(text) if operation is None else pack_append_body(text, None, operation)
        self.notify(b"A%s\n" % str(ref).encode() + body)

    def append_as_someone(self) -> None:
        self._append_one(self.messages[-1], "x", MessageOperation(self.source.choice((None, "who")), "why"))

    def append_with_extras(self) -> None:
        body = pack_append_body("y", {"headers": {"n": self.source.randrange(9)}})
        self.notify(b"A%s\n" % str(self.messages[-1]).encode() + body)

    def replace(self) -> None:
        self.notify(
            b"U%s\n" % str(self.messages[-1]).encode()
            + pack_replaced_body(Message(data="new"), MessageOperation())
        )

    def join(self) -> None:
        hidden = self.source.choice((NOTHING, NOTHING, frozenset({Traffic.REASONING})))
        whole = self.with_whole and self.source.random() < 0.1
        variant = Variant(self.source.choice(list(Format)), self.source.choice(("s", "é")), hidden, whole)
        mute = self.source.choice((None, None, None, "c1", MUTE_ALL))
        for side in self.sides:
            side.join(variant, mute)
        # Later than all that exists, so that nothing has to be read from the log.
        self.create()

    def leave(self, chosen: int | None = None) -> None:
        if chosen is None:
            chosen = self.source.randrange(len(self.sides[0].readers))
        self.paused.discard(chosen)
        for side in self.sides:
            side.feed.remove(side.readers[chosen].subscription)

    def pause(self) -> None:
        chosen = self.source.randrange(len(self.sides[0].readers))
        if chosen not in self.paused and self.subscription(chosen).state is not DeliveryState.DETACHED:
            self.paused.add(chosen)
            for side in self.sides:
                side.readers[chosen].subscription.pause()

    def proceed(self) -> None:
        while self.paused:
            chosen = self.paused.pop()
            for side in self.sides:
                side.readers[chosen].subscription.proceed()

    def fill(self) -> None:
        """One socket is full from the next frame on: it stalls, and is closed a while later."""
        chosen = self.source.randrange(len(self.sides[0].readers))
        for side in self.sides:
            side.readers[chosen].congested = True
        self.append()
        self.leave(chosen)

    def mute(self) -> None:
        chosen, mute = (
            self.source.randrange(len(self.sides[0].readers)),
            self.source.choice((None, "c1", "c2")),
        )
        for side in self.sides:
            side.readers[chosen].subscription.mute = mute
            # As everything does that changes what a subscription gets.
            side.feed.give_up_path()

    def forget(self) -> None:
        for side in self.sides:
            side.feed.forget_idle()

    async def play(self, steps: int, tasks: Background) -> None:
        """So many steps at random, some readers there from the first one on; then none pauses any more."""
        for _ in range(3):
            self.join()
        kinds: list[tuple[Callable[[], None], int]] = [
            (self.append, 60), (self.append_elsewhere, 5), (self.append_as_someone, 3), (self.append_with_extras, 2),
            (self.create, 5), (self.replace, 2), (self.join, 5), (self.leave, 3), (self.pause, 2), (self.proceed, 20),
            (self.fill, 2), (self.mute, 3), (self.forget, 2),
        ]  # fmt: skip
        for step in self.source.choices(*zip(*kinds, strict=True), k=steps):
            step()
            await tasks.finish()
        self.proceed()
        await tasks.finish()

    def subscription(self, number: int) -> Subscription:
        return self.sides[0].readers[number].subscription
