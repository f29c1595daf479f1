"""One channel of one connection, as the fan-out sees it: what it has been sent, and what waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from gateway.background import Background
from gateway.fanout.backlog import Backlogs
from gateway.fanout.current_states import CurrentStates, Encoded
from gateway.fanout.delivery import Aggregate, Delivery, Variant, encode_messages
from gateway.fanout.open_messages import OpenMessages
from gateway.fanout.selection import DeliveryAction, Selection
from selfhost_transport.errors import ContinuityLost, ErrorInfo, TransportError
from selfhost_transport.store.entries import Ref
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.serial import Position

logger = logging.getLogger(__name__)

MAX_HELD: Final = 4096
"""Deliveries that wait for one subscription; beyond that it is caught up from the log instead."""
_RETRY_S: Final = 0.5
_RETRY_STATE_S: Final = 0.2


class Outlet(Protocol):
    """The way out of a connection: encoded frames, and whether its buffer is over the limit."""

    @property
    def congested(self) -> bool: ...  # noqa: D102

    def write(self, frame: bytes) -> None: ...  # noqa: D102


class Counter(Protocol):
    """Where deliveries are counted."""

    def delivered(self, count: int) -> None: ...  # noqa: D102


class Feed(Protocol):
    """What a subscription needs of its session: see `SessionFeed`."""

    session: str
    epoch: str
    position: Position
    tasks: Background
    backlogs: Backlogs
    states: CurrentStates
    open: OpenMessages

    @property
    def counters(self) -> Counter: ...  # noqa: D102

    def set_live(self, subscription: Subscription) -> None: ...  # noqa: D102

    def set_waiting(self, subscription: Subscription) -> None: ...  # noqa: D102

    def note_ahead(self, version: Position) -> None: ...  # noqa: D102


class DeliveryState(Enum):
    """How a subscription gets its entries."""

    # Each entry is written as it arrives.
    LIVE = auto()
    # Entries gather in `held`: the attach is not answered yet, a message's state is being read, or it is paused.
    HOLDING = auto()
    # The socket does not keep up: nothing is kept, the log will be read from `delivered` on (P10).
    STALE = auto()
    DETACHED = auto()


@dataclass(frozen=True, slots=True)
class Gap:
    """Continuity was lost during a subscription: delivery continues after `position` (P7). `is_end`: nothing more comes."""

    position: Position
    error: ErrorInfo
    is_end: bool = False


@dataclass(frozen=True, slots=True)
class AttachResult:
    """How an attach went: where delivery starts, and whether continuity was kept (section 5.4)."""

    channel_serial: str
    resumed: bool = False
    backlog: bool = False
    presence: bool = False
    error: ErrorInfo | None = None


class Subscription(Selection):
    """When one reader gets what it selected: now, held, paused, or later from the log.

    `on_gap` notifies the connection of lost continuity. `SessionFeed.add` begins it.
    """

    __slots__ = (
        "_blocked",
        "_cleared",
        "_epoch",
        "_feed",
        "_held",
        "_moved",
        "_on_gap",
        "_pauses",
        "_released",
        "delivered",
        "outlet",
        "state",
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
        super().__init__(
            variant, mute=mute, presence=presence, annotations=annotations, connection_id=connection_id
        )
        self.outlet = outlet
        # Looked up once: called for each delivery. Replaced where frames are rewritten on their way out.
        self.write: Callable[[bytes], None] = outlet.write
        self.state = DeliveryState.HOLDING
        # The newest entry that was written; kept up to date while not live only.
        self.delivered = Position.ZERO
        # Set by `begin`.
        self._feed: Feed
        self._on_gap = on_gap
        # Whether ATTACHED has been sent, so that anything may be written.
        self._released = False
        # Counts the times it began to hold, so that an older reading of the log is recognised.
        self._epoch = 0
        # There while something is in it: nearly all subscriptions are live nearly always.
        self._held: deque[Delivery] | None = None
        # Answers that have to leave before entries after `_cleared`.
        self._pauses = 0
        self._cleared = Position.ZERO
        # It holds for no other reason than a pause.
        self._blocked = False
        self._moved: asyncio.Event | None = None

    # Where it begins

    def begin(self, feed: Feed) -> None:
        """Hold what arrives in a session from its present position on."""
        self._feed = feed
        self._hold(feed.position)
        self.start = feed.position

    def resume(self, after: Position) -> None:
        """It has everything up to a position already; that may be ahead of what was fanned out here."""
        self.start = self.delivered = after
        self._feed.note_ahead(after)

    def note_seen(self, ref: Ref, version: Position) -> None:
        """A message's state up to a version is being delivered outside of the order of entries."""
        self.seen[ref] = version
        self._feed.note_ahead(version)

    def release(self, backlog: Iterable[Delivery] = ()) -> None:
        """Deliver the backlog, what was held, and from then on everything."""
        self._released = True
        if self.state is DeliveryState.STALE:
            self._catch_up_soon()
        elif self.state is DeliveryState.HOLDING:
            held = deque(backlog)
            held.extend(self._held or ())
            self._held = held
            self._flush()

    def detach(self) -> None:
        """Nothing more is to be delivered."""
        self.state = DeliveryState.DETACHED
        self._blocked = False
        self._held = None
        self._notify()

    @property
    def epoch(self) -> str:
        """The log that its positions are of."""
        return self._feed.epoch

    @property
    def position(self) -> Position:
        """Up to where it has everything."""
        return (
            self.delivered
            if self.state in (DeliveryState.HOLDING, DeliveryState.STALE)
            else self._feed.position
        )

    # Entries

    def deliver(self, delivery: Delivery) -> None:
        """Write an entry, if it gets it; only while it is live."""
        if delivery.position <= self.delivered:
            return
        match self.action_for(delivery):
            case DeliveryAction.SEND:
                self.write(delivery.frame(self.variant))
                self._feed.counters.delivered(1)
                if self.outlet.congested and self.state is DeliveryState.LIVE:
                    self.wait_for_drain(delivery.position)
            case DeliveryAction.AGGREGATE:
                self._feed.set_waiting(self)
                # A resume from here gets this entry again: it is not delivered yet.
                self._hold(delivery.position.before)
                self._held = deque((delivery,))
                self._flush()

    def gather(self, delivery: Delivery) -> None:
        """Keep an entry for later; only while it holds."""
        if self._held is None:
            self._held = deque()
        self._held.append(delivery)
        if len(self._held) > MAX_HELD:
            self._mark_slow(self.delivered)
            # What a pause keeps back is read from the log when the pause is over, not again and again until then.
            if self._released and not self._pauses:
                self._catch_up_soon()

    def _flush(self) -> None:
        """Write what waits, until a message's state must be read or nothing is left."""
        feed = self._feed
        self._blocked = False
        while held := self._held:
            delivery = held[0]
            if self._pauses and delivery.position > self._cleared:
                break
            action = self.action_for(delivery) if delivery.position > self.delivered else DeliveryAction.SKIP
            if action is DeliveryAction.AGGREGATE and delivery.ref is not None:
                feed.states.want(delivery.ref, self)
                return
            held.popleft()
            if action is DeliveryAction.SEND:
                self.write(delivery.frame(self.variant))
                feed.counters.delivered(1)
            self.delivered = max(self.delivered, delivery.position)
            if self.outlet.congested:
                self._mark_slow(self.delivered)
                return
        self._held = self._held or None
        if self._pauses:
            self._blocked = True
        else:
            feed.set_live(self)
            self.state = DeliveryState.LIVE
        self._notify()

    def _hold(self, delivered: Position) -> None:
        """From now on gather what arrives."""
        self.state = DeliveryState.HOLDING
        self._blocked = False
        self._epoch += 1
        self.delivered = delivered

    # Pauses

    def pause(self) -> None:
        """Keep back what comes, until `proceed`: an answer has to leave first. Pauses add up."""
        self._pauses += 1
        if self.state is DeliveryState.LIVE:
            self._feed.set_waiting(self)
            self._hold(self._feed.position)
            self._blocked = True
            self._notify()

    def clear(self, until: Position) -> None:
        """Entries up to a position need not wait for the answer."""
        self._cleared = max(self._cleared, until)
        self._go_on()

    def proceed(self) -> None:
        """The answer has left: end one pause."""
        self._pauses -= 1
        self._go_on()

    def _go_on(self) -> None:
        """Deliver what no pause keeps back any more."""
        if self._blocked:
            self._flush()
        elif (
            self.state is DeliveryState.STALE
            and self._released
            and not self.outlet.congested
            and (not self._pauses or self._cleared > self.delivered)
        ):
            self._catch_up_soon()

    # Messages' current states

    def take_state(self, ref: Ref, state: Aggregate | None, encoded: Encoded) -> None:
        """The state of the message that the first held entry changes; None: it is gone."""
        feed, held = self._feed, self._held
        if self.state is not DeliveryState.HOLDING or not held or held[0].ref != ref:
            return
        awaited = held[0]
        if state is not None and not self.variant.passes(state.message):
            # It turned out to be hidden. Not `seen`: a reader that gains the right needs it whole.
            self._feed.open.learn(state, self._held or ())
            held.popleft()
            self.delivered = max(self.delivered, awaited.position)
            self._flush()
            return
        # A message that is gone has nothing to show; entries of it are passed over.
        self.note_seen(ref, awaited.position if state is None else max(state.version, awaited.position))
        if state is not None:
            key = (self.variant, awaited.position)
            if key not in encoded:
                # The position is that of the entry it answers: others up to its version are yet to come.
                encoded[key] = encode_messages(self.variant, awaited.position, feed.epoch, [state.message])
            self.write(encoded[key])
            feed.counters.delivered(1)
            self._feed.open.learn(state, self._held or ())
        self._flush()

    def state_failed(self) -> None:
        """A message's state could not be read: begin again from the log."""
        if self.state is DeliveryState.HOLDING:
            self._mark_slow(self.delivered)
            self._catch_up_soon(delay=_RETRY_STATE_S)

    # A reader that does not keep up

    def wait_for_drain(self, delivered: Position) -> None:
        """The socket is full: stop writing until it has drained (P10)."""
        self._feed.set_waiting(self)
        self._mark_slow(delivered)

    def _mark_slow(self, delivered: Position) -> None:
        """Forget what waits; it will be read from the log."""
        self.state = DeliveryState.STALE
        self._blocked = False
        self.delivered = delivered
        self._held = None

    def drained(self) -> None:
        """The socket has room again: continue where it stopped."""
        if self.state is DeliveryState.STALE:
            self._catch_up_soon()

    def skip(self, behind: Position) -> None:
        """Entries after a position are not fanned out: read them from the log, now or once the socket has room."""
        if self.state is DeliveryState.STALE:
            return
        self.wait_for_drain(behind if self.state is DeliveryState.LIVE else self.delivered)
        if self._released and not self.outlet.congested:
            self._catch_up_soon()

    def restart(self, error: ErrorInfo) -> None:
        """Continuity is lost: say so, and continue from the session's present position (section 5.4)."""
        if self.state is DeliveryState.DETACHED:
            return
        feed = self._feed
        feed.set_waiting(self)
        self._held = None
        self.seen.clear()
        self._hold(feed.position)
        self.start = feed.position
        self._on_gap(Gap(feed.position, error))
        self._flush()

    def end(self, error: ErrorInfo) -> None:
        """The session is no more: nothing is delivered from here on."""
        if self.state is not DeliveryState.DETACHED:
            self._on_gap(Gap(self.position, error, is_end=True))

    def _catch_up_soon(self, delay: float = 0.0) -> None:
        self._hold(self.delivered)
        self._feed.tasks.start(self._catch_up(self._feed.position, delay))

    async def _catch_up(self, until: Position, delay: float) -> None:
        # What was held is given up when there is too much of it; a newer catch-up takes over then.
        feed, generation = self._feed, self._epoch
        while self._epoch == generation and self.state is DeliveryState.HOLDING:
            try:
                if delay:
                    await asyncio.sleep(delay)  # paces asking while Redis is away
                backlog = await feed.backlogs.read(feed.epoch, self.delivered, until)
                if self._epoch != generation:
                    return
            except ContinuityLost:
                reason = "entries were skipped because this client read too slowly; read the history"
                self.restart(error_info(Code.CONTINUITY_LOST_SLOW, reason))
                return
            except TransportError as error:
                logger.warning("session.catch_up_failed session=%s error=%s", feed.session, error)
                delay = _RETRY_S
            else:
                self.release(backlog)
                return

    # Waiting for it

    async def caught_up(self, position: Position) -> None:
        """Returns once everything up to a position, of what was fanned out, was written."""
        while not self._has_written(position):
            if self._moved is None:
                self._moved = asyncio.Event()
            await self._moved.wait()

    def _has_written(self, position: Position) -> bool:
        if self.state in (DeliveryState.LIVE, DeliveryState.DETACHED):
            return True
        return self._blocked and (not self._held or self._held[0].position > position)

    def _notify(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None
