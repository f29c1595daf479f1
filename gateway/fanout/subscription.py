"""One channel of one connection, as the fan-out sees it: what it has been sent, and what waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from gateway.fanout.delivery import Delivery, Variant
from selfhost_transport.errors import ErrorInfo
from selfhost_transport.store.entries import Ref
from selfhost_transport.wire.serial import Position

MUTE_ALL = "*"
"""As `mute`: no messages at all. It cannot be the id of a connection."""
MAX_HELD = 4096
"""Deliveries that wait for one subscription; beyond that it is caught up from the log instead."""


class Outlet(Protocol):
    """The way out of a connection: raw websocket frames, and whether its buffer is over the limit."""

    @property
    def congested(self) -> bool: ...  # noqa: D102

    def write(self, frame: bytes) -> None: ...  # noqa: D102


class State(Enum):
    """How a subscription gets its entries."""

    # Each entry is written as it arrives.
    LIVE = auto()
    # Entries gather in `held`: the attach is not answered yet, a message's state is being read, or it is paused.
    HOLDING = auto()
    # The socket does not keep up: nothing is kept, the log will be read from `delivered` on (P10).
    STALE = auto()
    DETACHED = auto()


class Verdict(Enum):
    """What a subscription needs of a delivery."""

    SEND = auto()
    SKIP = auto()
    # The message's current state instead of a delta.
    AGGREGATE = auto()


@dataclass(frozen=True, slots=True)
class Gap:
    """Continuity was lost during a subscription: delivery continues after `position` (P7)."""

    position: Position
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Attached:
    """How an attach went: where delivery starts, and whether continuity was kept (section 5.4)."""

    channel_serial: str
    resumed: bool = False
    backlog: bool = False
    presence: bool = False
    error: ErrorInfo | None = None


class Subscription:
    """State of one subscription. `on_gap` notifies the connection of lost continuity.

    `mute`: a connection id whose messages are not delivered (echo off), or MUTE_ALL.
    `presence`: it gets all members; without, those of `connection_id` only (section 8.2). `annotations`: it
    gets each annotation.
    """

    __slots__ = (
        "_moved",
        "annotations",
        "blocked",
        "cleared",
        "connection_id",
        "delivered",
        "epoch",
        "held",
        "mute",
        "on_gap",
        "outlet",
        "pauses",
        "presence",
        "released",
        "seen",
        "start",
        "state",
        "variant",
        "write",
    )

    def __init__(
        self,
        outlet: Outlet,
        variant: Variant,
        on_gap: Callable[[Gap], None],
        *,
        mute: str | None = None,
        presence: bool = False,
        annotations: bool = False,
        connection_id: str | None = None,
    ) -> None:
        self.outlet = outlet
        # Looked up once: called for each delivery. Replaced where frames are rewritten on their way out.
        self.write: Callable[[bytes], None] = outlet.write
        self.variant = variant
        self.on_gap = on_gap
        self.mute = mute
        self.presence = presence
        self.annotations = annotations
        self.connection_id = connection_id
        self.state = State.HOLDING
        # Whether ATTACHED has been sent, so that anything may be written.
        self.released = False
        # Counts the times it began to hold, so that an older reading of the log is recognised.
        self.epoch = 0
        # Messages created after this were delivered whole, so that deltas make sense.
        self.start = Position.ZERO
        # The newest entry that was written; kept up to date while not live only.
        self.delivered = Position.ZERO
        # Older messages whose state was delivered since, and up to which version.
        self.seen: dict[Ref, Position] = {}
        # There while something is in it: nearly all subscriptions are live nearly always.
        self.held: deque[Delivery] | None = None
        # Answers that have to leave before entries after `cleared`.
        self.pauses = 0
        self.cleared = Position.ZERO
        # It holds for no other reason than a pause.
        self.blocked = False
        self._moved: asyncio.Event | None = None

    def judge(self, delivery: Delivery) -> Verdict:
        """What to do with a delivery (section 7.4)."""
        if delivery.is_presence:
            own = self.connection_id is not None and delivery.connection_id == self.connection_id
            return Verdict.SEND if self.presence or own else Verdict.SKIP
        if delivery.is_annotation:
            return Verdict.SEND if self.annotations else Verdict.SKIP
        if self.variant.is_selective and delivery.is_hidden(self.variant):
            return Verdict.SKIP
        if self.mute is not None and self.mute in (delivery.connection_id, MUTE_ALL):
            return Verdict.SKIP
        ref = delivery.ref
        if ref is None:
            return Verdict.SEND
        version = self.seen.get(ref)
        if version is not None and delivery.position <= version:
            return Verdict.SKIP
        if not delivery.is_append:
            if ref.position <= self.start:
                self.seen[ref] = delivery.position
            return Verdict.SEND
        if delivery.aggregate_only or self.variant.whole:
            return Verdict.AGGREGATE
        return Verdict.SEND if ref.position > self.start or version is not None else Verdict.AGGREGATE

    def hold(self, delivered: Position) -> None:
        """From now on gather what arrives."""
        self.state = State.HOLDING
        self.blocked = False
        self.epoch += 1
        self.delivered = delivered

    def begin_anew(self, delivered: Position, start: Position) -> None:
        """Deltas of messages up to `start` no longer make sense, but for states delivered ahead of `delivered`."""
        self.seen = {ref: version for ref, version in self.seen.items() if version > delivered}
        self.start = start

    def forget_ended(self, delivered: Position, growing: Container[Ref]) -> None:
        """Forget the delivered states of messages that no longer grow."""
        if self.seen:
            kept = {r: version for r, version in self.seen.items() if version > delivered or r in growing}
            self.seen = kept

    def keep(self, delivery: Delivery) -> int:
        """Gather a delivery. Returns how many there are now."""
        if self.held is None:
            self.held = deque()
        self.held.append(delivery)
        return len(self.held)

    def precede(self, backlog: Iterable[Delivery]) -> None:
        """Put deliveries before what was gathered."""
        held = deque(backlog)
        held.extend(self.held or ())
        self.held = held

    def may_pass(self, position: Position) -> bool:
        """Whether no pause keeps an entry back."""
        return not self.pauses or position <= self.cleared

    def block(self) -> None:
        """Only a pause keeps back the held entries and later ones."""
        self.blocked = True
        self._notify()

    def mark_slow(self, delivered: Position) -> None:
        """Forget what waits; it will be read from the log."""
        self.state = State.STALE
        self.blocked = False
        self.delivered = delivered
        self.held = None

    def go_live(self) -> None:
        """Nothing waits."""
        self.state = State.LIVE
        self.blocked = False
        self._notify()

    def detach(self) -> None:
        """Nothing more is to be delivered."""
        self.state = State.DETACHED
        self.blocked = False
        self.held = None
        self._notify()

    async def caught_up(self, position: Position) -> None:
        """Returns once everything up to a position, of what was fanned out, was written."""
        while not self._has_written(position):
            if self._moved is None:
                self._moved = asyncio.Event()
            await self._moved.wait()

    def _has_written(self, position: Position) -> bool:
        if self.state in (State.LIVE, State.DETACHED):
            return True
        return self.blocked and (not self.held or self.held[0].position > position)

    def _notify(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None
