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
from gateway.fanout.subscription import State, Subscription
from selfhost_transport.errors import ErrorInfo
from selfhost_transport.store.entries import Entry
from selfhost_transport.store.session_store import Head, SessionStore
from selfhost_transport.wire.serial import Position

# Looked up once: the comparison is on the path of every entry to every reader.
_HELD: Final = State.HOLDING


class Counters(Protocol):
    """Where a session's fan-out counts."""

    def delivered(self, count: int) -> None: ...  # noqa: D102

    def fanned_out(self, written_ms: int) -> None: ...  # noqa: D102

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
        "_latest_start",
        "_live",
        "_name",
        "_passing",
        "_path",
        "_position",
        "_waiting",
        "backlogs",
        "counters",
        "epoch",
        "open",
        "session",
        "states",
        "tasks",
        "watches",
    )

    def __init__(self, session: str, store: SessionStore, tasks: Background, counters: Counters) -> None:
        self.session = session
        self.epoch = ""
        self._position = Position.ZERO
        # The name of a newer one that has not been asked for yet.
        self._name: bytes | None = None
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
        self._passing: list[tuple[Position, asyncio.Future[None]]] = []
        # The message that was appended to last, and the short way for more of the same: there while no subscription
        # waits, and given up with every change of who gets what.
        self._appended: OpenMessage | None = None
        self._path: AppendPath | None = None

    @property
    def position(self) -> Position:
        """The newest entry that was fanned out."""
        if self._name is not None:
            self._position, self._name = Position.of_name(self._name), None
        return self._position

    @position.setter
    def position(self, position: Position) -> None:
        self._position, self._name = position, None

    @property
    def idle(self) -> bool:
        """Whether there are no watchers."""
        return not (self.watches or self._waiting or any(self._live.values()))

    @property
    def growing(self) -> int:
        """Messages that are kept for appends to come."""
        return len(self.open)

    # The order of entries: called by the follower of the log

    def append(self, notification: bytes, last: bytes) -> bytes | None:
        """Fan out one more append of the kind before, if it follows `last`: the name of its position.

        None for anything else: `advance` is for that.
        """
        path = self._path
        if path is None or path.message is not self.open.latest:
            return None
        made = path.frames(notification, last)
        if made is None:
            return None
        name, written_ms, frames = made
        self._name = name
        count, slow = path.write(frames)
        self.counters.delivered(count)
        self.counters.fanned_out(written_ms)
        for subscription in slow:
            subscription.stall(self.position)
        return name

    def advance(self, position: Position, entry: Entry | None) -> None:
        """The next entry of the log; None for one that cannot be read."""
        self.position = position
        if entry is not None:
            self._fan_out(self.open.delivery(entry))
        if self._passing:
            self._resolve_passing()

    def reset(self, head: Head) -> None:
        """Continue from the end of a log. What was in between is not fanned out: see `skipped` and `lost`."""
        self.epoch = head.epoch
        self.position = head.position
        self.open = OpenMessages(head.epoch)
        self._path = None
        self._resolve_passing()

    def skipped(self, behind: Position) -> None:
        """Entries between a position and the present one were left out: each subscription reads them itself."""
        for subscription in self._all():
            subscription.skip(behind)

    def lost(self, error: ErrorInfo) -> None:
        """Continuity was lost: every subscription continues from the present position, and is notified."""
        for subscription in self._all():
            subscription.restart(error)

    async def passed(self, position: Position) -> None:
        """Returns once everything up to a position was fanned out."""
        if self.position >= position:
            return
        passing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._passing.append((position, passing))
        self._path = None
        await passing

    def _resolve_passing(self) -> None:
        still = []
        for position, passing in self._passing:
            if position > self.position:
                still.append((position, passing))
            elif not passing.done():
                passing.set_result(None)
        self._passing = still

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
            for subscription in members:
                if subscription.mute is not None and subscription.mute in (delivery.connection_id, MUTE_ALL):
                    continue
                subscription.write(frame)
                if subscription.outlet.congested:
                    slow.append(subscription)
            self.counters.delivered(len(members))
        for subscription in slow:
            subscription.stall(delivery.position)
        for subscription in whole:
            subscription.deliver(delivery)
        if delivery.is_append:
            self._shorten()

    def _shorten(self) -> None:
        """Lay the short way out for a message that is appended to a second time in a row."""
        message, before = self.open.latest, self._appended
        self._appended = message
        if message is not None and message is before and not (self._waiting or self._passing):
            self._path = AppendPath.to(self._live, message, self.epoch)

    # Watchers

    def add(self, subscription: Subscription) -> None:
        """Hold entries for a subscription from here on."""
        subscription.begin(self)
        self._waiting[subscription] = None
        self._path = None

    def remove(self, subscription: Subscription) -> None:
        """Stop delivering at once."""
        self._live.get(subscription.variant, {}).pop(subscription, None)
        self._waiting.pop(subscription, None)
        self._path = None
        subscription.detach()

    def set_live(self, subscription: Subscription) -> None:
        """From now on a subscription is written to directly."""
        self._waiting.pop(subscription, None)
        self._live.setdefault(subscription.variant, {})[subscription] = None
        self._latest_start = max(self._latest_start, subscription.start)
        self._path = None

    def set_waiting(self, subscription: Subscription) -> None:
        """From now on entries gather for a subscription, or it reads them from the log."""
        self._live.get(subscription.variant, {}).pop(subscription, None)
        self._waiting[subscription] = None
        self._path = None

    def note_ahead(self, version: Position) -> None:
        """Some subscription has, of something, what was not fanned out here yet."""
        self._ahead_until = max(self._ahead_until, version)
        self._path = None

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
        self._path = None

    def forget_idle(self) -> None:
        """Drop state that is only needed while messages grow; call it periodically."""
        self.open.forget_idle()
        for subscription in self._all():
            subscription.forget_ended(subscription.position, self.open)

    def _all(self) -> list[Subscription]:
        return [*self._waiting, *(member for members in self._live.values() for member in members)]
