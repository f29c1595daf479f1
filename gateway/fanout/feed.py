"""One session as this process sees it: who watches it, and the fan-out of its entries to them."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from gateway.background import Background
from gateway.fanout.backlog import Backlogs
from gateway.fanout.current_states import CurrentStates
from gateway.fanout.delivery import Delivery, Variant
from gateway.fanout.open_messages import OpenMessages
from gateway.fanout.selection import MUTE_ALL
from gateway.fanout.subscription import State, Subscription
from selfhost_transport.errors import ErrorInfo
from selfhost_transport.store.entries import Entry
from selfhost_transport.store.session_store import Head, SessionStore
from selfhost_transport.wire.serial import Position

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
        "_latest_start",
        "_live",
        "_passing",
        "_waiting",
        "backlogs",
        "counters",
        "epoch",
        "open",
        "position",
        "session",
        "states",
        "tasks",
        "watches",
    )

    def __init__(self, session: str, store: SessionStore, tasks: Background, counters: Counters) -> None:
        self.session = session
        self.epoch = ""
        self.position = Position.ZERO
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

    @property
    def idle(self) -> bool:
        """Whether there are no watchers."""
        return not (self.watches or self._waiting or any(self._live.values()))

    @property
    def watchers(self) -> int:
        """Subscriptions in any state."""
        return len(self._waiting) + sum(len(members) for members in self._live.values())

    @property
    def growing(self) -> int:
        """Messages that are kept for appends to come."""
        return len(self.open)

    # The order of entries: called by the follower of the log

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

    # Watchers

    def add(self, subscription: Subscription) -> None:
        """Hold entries for a subscription from here on."""
        subscription.begin(self)
        self._waiting[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        """Stop delivering at once."""
        self._live.get(subscription.variant, {}).pop(subscription, None)
        self._waiting.pop(subscription, None)
        subscription.detach()

    def set_live(self, subscription: Subscription) -> None:
        """From now on a subscription is written to directly."""
        self._waiting.pop(subscription, None)
        self._live.setdefault(subscription.variant, {})[subscription] = None
        self._latest_start = max(self._latest_start, subscription.start)

    def set_waiting(self, subscription: Subscription) -> None:
        """From now on entries gather for a subscription, or it reads them from the log."""
        self._live.get(subscription.variant, {}).pop(subscription, None)
        self._waiting[subscription] = None

    def note_ahead(self, version: Position) -> None:
        """Some subscription has, of something, what was not fanned out here yet."""
        self._ahead_until = max(self._ahead_until, version)

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

    def forget_idle(self) -> None:
        """Drop state that is only needed while messages grow; call it periodically."""
        self.open.forget_idle()
        for subscription in self._all():
            subscription.forget_ended(subscription.position, self.open)

    def _all(self) -> list[Subscription]:
        return [*self._waiting, *(member for members in self._live.values() for member in members)]
