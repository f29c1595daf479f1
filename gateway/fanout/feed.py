"""One session as this process sees it: who watches it, and the fan-out of its entries to them."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from gateway.background import Background
from gateway.fanout.append_path import AppendPath
from gateway.fanout.backlog import Backlogs
from gateway.fanout.current_states import CurrentStates
from gateway.fanout.delivery import Delivery, OpenMessage, Variant
from gateway.fanout.open_messages import OpenMessages
from gateway.fanout.selection import MUTE_ALL
from gateway.fanout.subscription import DeliveryState, Subscription
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport.accelerator import Lane, Way
from selfhost_transport.errors import ErrorInfo
from selfhost_transport.store.entries import Entry
from selfhost_transport.store.session_store import Head, SessionStore
from selfhost_transport.wire.serial import Position

# Looked up once: the comparison is on the path of every entry to every reader.
_HELD: Final = DeliveryState.HOLDING


class Counters(Protocol):
    """Where a session's fan-out counts."""

    def delivered(self, count: int) -> None: ...  # noqa: D102

    def fanned_out(self, written_ms: int, count: int = 1) -> None: ...  # noqa: D102

    def gap(self) -> None: ...  # noqa: D102

    def jumped(self) -> None: ...  # noqa: D102


class SessionFeed:
    """The watchers of one session in this process. Its LogFollower brings the entries, in order and without gaps.

    `position`: the newest entry that was fanned out; `epoch`: the log that it is of. `watches`: those who wait for
    positions without a subscription.
    """

    __slots__ = (
        "_ahead_until",
        "_appended",
        "_lane",
        "_last",
        "_latest_start",
        "_live",
        "_named",
        "_path",
        "_position",
        "_position_waiters",
        "_waiting",
        "backlogs",
        "counters",
        "epoch",
        "is_following",
        "open",
        "session",
        "states",
        "tasks",
        "watches",
        "way",
        "write_batch",
    )

    def __init__(self, session: str, store: SessionStore, tasks: Background, counters: Counters) -> None:
        self.session = session
        self.epoch = ""
        self._position = Position.ZERO
        # The name of the newest entry, where there is no lane, and the name of what `_position` is.
        self._last = self._named = b"0-0"
        self.watches = 0
        self.tasks = tasks
        self.counters = counters
        self.backlogs = Backlogs(store, session, tasks)
        self.states = CurrentStates(store.history, session, tasks)
        # Messages that are being appended to.
        self.open = OpenMessages("")
        self._live: dict[Variant, dict[Subscription, None]] = {}
        self._waiting: dict[Subscription, None] = {}
        # Messages created after this need no check of single subscriptions …
        self._latest_start = Position.ZERO
        # … unless a message's state was handed out that reaches beyond what was fanned out.
        self._ahead_until = Position.ZERO
        self._position_waiters: list[tuple[Position, asyncio.Future[None]]] = []
        # The message that was appended to last, and the short way for more of the same: there while no subscription
        # waits, and given up with every change of who gets what.
        self._appended: OpenMessage | None = None
        self._path: AppendPath | None = None
        # The same in the accelerator, where all readers are websockets; with it `last` is known there. `way`: the callback
        # of the session's notifications; `write_batch`: what joins the frames of each socket.
        self._lane: Lane | None = None
        self.way: Way | None = None
        self.write_batch = WriteBatch()
        # Whether notifications are fanned out as they come, not kept until something was read from the log.
        self.is_following = True

    @property
    def last(self) -> bytes:
        """The name of the newest entry that was fanned out, as Redis says it."""
        lane = self._lane
        return self._last if lane is None else lane.last

    @property
    def position(self) -> Position:
        """The newest entry that was fanned out."""
        last = self.last
        if last != self._named:
            self._position, self._named = Position.of_name(last), last
        return self._position

    @position.setter
    def position(self, position: Position) -> None:
        self.give_up_path()
        self._position = position
        self._last = self._named = position.stream_id.encode()

    @property
    def idle(self) -> bool:
        """Whether there are no watchers."""
        return not (self.watches or self._waiting or any(self._live.values()))

    @property
    def growing(self) -> int:
        """Messages that are kept for appends to come."""
        return len(self.open)

    # The order of entries: called by the follower of the log

    def append(self, notification: bytes) -> bool:
        """Fan out one more append of the kind before, if it is the next entry. For anything else there is `advance`."""
        path = self._path
        if path is None:
            return False
        if self._lane is not None:
            return self._append_to(self._lane, notification)
        made = path.frames(notification, self._last)
        if made is None:
            return False
        self._last, written_ms, frames = made
        count, slow = path.write(frames)
        self.counters.delivered(count)
        self.counters.fanned_out(written_ms)
        for subscription in slow:
            subscription.wait_for_drain(self.position)
        return True

    def _append_to(self, lane: Lane, notification: bytes) -> bool:
        if not self.write_batch.open:
            with self.write_batch:
                return self._append_to(lane, notification)
        taken = lane.take(notification, self.write_batch.buffers)
        if taken is None:
            return False
        count, written_ms = taken
        self.counters.delivered(count)
        self.counters.fanned_out(written_ms)
        return True

    def give_up_path(self) -> None:
        """From here on each entry is looked at, until there were some of one kind again."""
        self._path = None
        if self._lane is not None:
            self._last, self._lane = self._lane.last, None
            if self.way is not None:
                self.way.lane = None

    def advance(self, position: Position, entry: Entry | None, name: bytes = b"") -> None:
        """The next entry of the log; None for one that cannot be read. `name`: of its position, where that is at hand."""
        self.give_up_path()
        self._position = position
        self._last = self._named = name or position.stream_id.encode()
        if entry is not None:
            self._fan_out(self.open.delivery(entry))
        if self._position_waiters:
            self._resolve_waiters()

    def reset(self, head: Head) -> None:
        """Continue from the end of a log. What was in between is not fanned out: see `skipped` and `lost`."""
        self.epoch = head.epoch
        self.position = head.position
        self.open = OpenMessages(head.epoch)
        self.give_up_path()
        self._resolve_waiters()

    def skipped(self, behind: Position) -> None:
        """Entries between a position and the present one were left out: each subscription reads them itself."""
        for subscription in self._all():
            subscription.skip(behind)

    def lost(self, error: ErrorInfo) -> None:
        """Continuity was lost: every subscription continues from the present position, and is notified."""
        for subscription in self._all():
            subscription.restart(error)

    def end(self, error: ErrorInfo) -> None:
        """The session is no more: its watchers are notified, and wait for nothing."""
        for subscription in self._all():
            subscription.end(error)
        for _, waiter in self._position_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._position_waiters = []

    async def until_fanned_out(self, position: Position) -> None:
        """Returns once everything up to a position was fanned out."""
        if self.position >= position:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._position_waiters.append((position, waiter))
        self.give_up_path()
        await waiter

    def _resolve_waiters(self) -> None:
        still = []
        for position, waiter in self._position_waiters:
            if position > self.position:
                still.append((position, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        self._position_waiters = still

    # Fan-out

    def _fan_out(self, delivery: Delivery) -> None:
        for subscription in self._waiting:
            if subscription.state is _HELD:
                subscription.gather(delivery)
        ref = delivery.ref
        if (
            delivery.is_presence
            or delivery.is_annotation
            or delivery.position <= self._ahead_until
            or (
                ref is not None
                and (ref.position <= self._latest_start or delivery.aggregate_only or not delivery.is_append)
            )
        ):
            for subscription in [member for members in self._live.values() for member in members]:
                subscription.deliver(delivery)
            return
        slow: list[Subscription] = []
        whole: list[Subscription] = []
        for variant, members in self._live.items():
            # As `is_selective`, without its call: every entry comes here.
            if not members or ((variant.hidden or variant.filter) and delivery.is_hidden(variant)):
                continue
            if variant.whole and delivery.is_append:
                whole += members
                continue
            frame = delivery.frame(variant)
            muted = 0
            for subscription in members:
                if subscription.mute is not None and subscription.mute in (delivery.connection_id, MUTE_ALL):
                    muted += 1
                    continue
                subscription.write(frame)
                if subscription.outlet.congested:
                    slow.append(subscription)
            self.counters.delivered(len(members) - muted)
        for subscription in slow:
            subscription.wait_for_drain(delivery.position)
        for subscription in whole:
            subscription.deliver(delivery)
        if delivery.is_append:
            self._shorten()

    def _shorten(self) -> None:
        """Lay the short way out for a message that is appended to a second time in a row."""
        message, before = self.open.latest, self._appended
        self._appended = message
        if message is not None and message is before and not (self._waiting or self._position_waiters):
            self.give_up_path()
            self._path = AppendPath.to(self._live, message, self.epoch)
            if self._path is not None and self.is_following:
                self._lane = self._path.lane(self._last)
                if self.way is not None:
                    self.way.lane = self._lane

    # Watchers

    def add(self, subscription: Subscription) -> None:
        """Hold entries for a subscription from here on."""
        subscription.begin(self)
        self._waiting[subscription] = None
        self.give_up_path()

    def remove(self, subscription: Subscription) -> None:
        """Stop delivering at once."""
        self._live.get(subscription.variant, {}).pop(subscription, None)
        self._waiting.pop(subscription, None)
        self.give_up_path()
        subscription.detach()

    def set_live(self, subscription: Subscription) -> None:
        """From now on a subscription is written to directly."""
        self._waiting.pop(subscription, None)
        self._live.setdefault(subscription.variant, {})[subscription] = None
        self._latest_start = max(self._latest_start, subscription.start)
        self.give_up_path()

    def set_waiting(self, subscription: Subscription) -> None:
        """From now on entries gather for a subscription, or it reads them from the log."""
        self._live.get(subscription.variant, {}).pop(subscription, None)
        self._waiting[subscription] = None
        self.give_up_path()

    def note_ahead(self, version: Position) -> None:
        """Some subscription has, of something, what was not fanned out here yet."""
        self._ahead_until = max(self._ahead_until, version)
        self.give_up_path()

    def show_as(self, subscription: Subscription, variant: Variant) -> None:
        """From here on frames of another variant. What exists already is delivered whole when it changes next."""
        here = subscription.position
        members = self._live.get(subscription.variant, {})
        is_live = subscription in members
        members.pop(subscription, None)
        subscription.variant = variant
        subscription.begin_anew(here, self.position)
        self._latest_start = max(self._latest_start, subscription.start)
        if is_live:
            self._live.setdefault(variant, {})[subscription] = None
        self.give_up_path()

    def forget_idle(self) -> None:
        """Drop state that is only needed while messages grow; call it periodically."""
        self.give_up_path()
        self.open.forget_idle()
        for subscription in self._all():
            subscription.forget_ended(subscription.position, self.open)

    def _all(self) -> list[Subscription]:
        return [*self._waiting, *(member for members in self._live.values() for member in members)]
