"""One session as this process sees it: its notifications in order, without gaps, fanned out to subscriptions.

Notifications carry their predecessor's position. Where it is not the last one seen, the gap is filled from the log;
if the log does not reach back far enough, every subscription gets a discontinuity (P7).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final, Protocol

from gateway.background import Background
from gateway.fanout.backlog import BATCH, SharedBacklogs, read_backlog
from gateway.fanout.delivery import Aggregate, Delivery, Variant, encode_messages
from gateway.fanout.open_messages import OpenMessages, unpack_or_skip
from gateway.fanout.subscription import MAX_HELD, MUTE_ALL, Gap, State, Subscription, Verdict
from selfhost_transport.errors import ContinuityLost, ErrorInfo, TransportError
from selfhost_transport.store.entries import (
    Entry,
    Ref,
)
from selfhost_transport.store.session_store import Head, SessionStore
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.serial import Position, parse_position

logger = logging.getLogger(__name__)


MAX_PENDING: Final = 4096
LOOKS: Final = 4
"""How often the log is read for an entry that was announced, before the announcement is taken for a foreign one."""
FIRST_LOOK_S: Final = 0.05
LONGEST_LOOK_S: Final = 2.0
"""Notifications that are kept while the log is read."""


class Counters(Protocol):
    """Where a feed counts."""

    def delivered(self, count: int) -> None: ...  # noqa: D102

    def fanned_out(self, written_ms: int) -> None: ...  # noqa: D102

    def gap(self) -> None: ...  # noqa: D102

    def jumped(self) -> None: ...  # noqa: D102


class SessionFeed:
    """The order of one session, and its watchers in this process."""

    __slots__ = (
        "_ahead_until",
        "_backlogs",
        "_counters",
        "_dropped",
        "_last_id",
        "_latest_start",
        "_live",
        "_looked_at",
        "_open",
        "_passing",
        "_pending",
        "_read_until",
        "_reading",
        "_store",
        "_tasks",
        "_waiting",
        "closed",
        "position",
        "series",
        "session",
    )

    def __init__(self, session: str, store: SessionStore, tasks: Background, counters: Counters) -> None:
        self.session = session
        # Set once it is no longer needed.
        self.closed = False
        self.series = ""
        # The newest entry that was fanned out.
        self.position = Position.ZERO
        # How much of that came from the log: notifications of it may still be in flight.
        self._read_until = Position.ZERO
        self._store = store
        self._tasks = tasks
        self._counters = counters
        self._last_id = b""
        # Where it stood when it was last asked whether anything comes.
        self._looked_at = Position.ZERO
        # Notifications that arrived while the feed starts or fills a gap.
        self._pending: list[bytes] | None = []
        # Some of them were dropped: the log must be read once more.
        self._dropped = False
        self._open = OpenMessages("")
        self._live: dict[Variant, dict[Subscription, None]] = {}
        self._waiting: dict[Subscription, None] = {}
        self._reading: dict[Ref, list[Subscription]] = {}
        # Messages created after this need no check of single subscriptions …
        self._latest_start = Position.ZERO
        # … unless an aggregate was handed out that reaches beyond what was fanned out.
        self._ahead_until = Position.ZERO
        # Set by the first resume.
        self._backlogs: SharedBacklogs | None = None
        self._passing: list[tuple[Position, asyncio.Future[None]]] = []

    @property
    def idle(self) -> bool:
        """Whether there are no watchers."""
        return not self._waiting and not any(self._live.values())

    @property
    def watchers(self) -> int:
        """Attachments in any state."""
        return len(self._waiting) + sum(len(members) for members in self._live.values())

    @property
    def growing(self) -> int:
        """Messages that are kept for appends to come."""
        return len(self._open)

    # The order of entries

    async def start(self) -> None:
        """Take the present end of the log as position. The subscription must be confirmed already."""
        head = await self._store.open(self.session)
        self._reset(head)
        if self._dropped or not self._drain_pending():
            self._tasks.start(self._fill())

    def notify(self, payload: bytes) -> None:
        """A notification: `<position> <predecessor> <entry>`."""
        if self._pending is not None:
            self._keep_pending(payload)
            return
        if not self._take(payload):
            self._pending = [payload]
            self._tasks.start(self._fill())

    def compare(self) -> None:
        """Notifications may have been lost: read the log from the last one on."""
        if self._pending is None:
            self._pending = []
            self._tasks.start(self._fill())

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last time this was asked."""
        quiet = self._pending is None and self.position == self._looked_at
        self._looked_at = self.position
        return quiet

    def differs(self, head: Position) -> bool:
        """Whether the newest entry of the log, read a moment ago, is another one than the newest one seen here."""
        return self._pending is None and self.position == self._looked_at and head != self.position

    def jump(self) -> None:
        """More notifications arrive than can be fanned out: continue from the end of the log.

        Each subscription reads the entries in between itself, conflated if there are many.
        """
        if self._pending is not None:
            self._pending.clear()
            self._dropped = True
            return
        self._pending = []
        self._counters.jumped()
        self._tasks.start(self._jump())

    def _keep_pending(self, payload: bytes) -> None:
        assert self._pending is not None
        self._pending.append(payload)
        if len(self._pending) > MAX_PENDING:
            # They are in the log, which is read once more.
            self._pending.clear()
            self._dropped = True

    async def _jump(self) -> None:
        try:
            head = await self._store.open(self.session)
        except TransportError as error:
            logger.warning("session.jump_failed session=%s error=%s", self.session, error)
            await self._fill()
            return
        if head.series == self.series:
            behind, subscriptions = self.position, self._all()
            self._reset(head)
            for subscription in subscriptions:
                self._send_to_log(subscription, behind)
        # What came meanwhile; and a log that began anew is noticed there.
        await self._fill()

    def _send_to_log(self, subscription: Subscription, behind: Position) -> None:
        """What a subscription does not have it reads from the log, now or once its socket has room."""
        if subscription.state is State.STALE:
            return
        self._stall(subscription, behind if subscription.state is State.LIVE else subscription.delivered)
        if subscription.released and not subscription.outlet.congested:
            self._catch_up_soon(subscription)

    def _take(self, payload: bytes) -> bool:
        """Fan an entry out if it is the next one. False: something is missing before it."""
        name, previous, entry = payload.split(b" ", 2)
        if previous != self._last_id:
            # Read from the log already, if it is no newer than that was; else something is missing, or Redis went back.
            return Position.of_name(name) <= self._read_until
        position = Position.of_name(name)
        self._advance(position, unpack_or_skip(position, entry), name)
        self._counters.fanned_out(self.position.ms)
        return True

    async def _fill(self) -> None:
        """Read missing entries from the log, then continue with those that arrived meanwhile.

        It is repeated at growing intervals, until there are no watchers.
        """
        self._counters.gap()
        delay, looks = FIRST_LOOK_S, 0
        while not self.closed:
            try:
                missing = await self._fill_once()
            except TransportError as error:
                logger.warning("session.fill_failed session=%s error=%s", self.session, error)
            else:
                if not missing:
                    if self._pending is None:
                        return
                    delay, looks = FIRST_LOOK_S, 0
                    continue
                looks += 1
                if looks >= LOOKS:
                    self._pass_over_foreign(missing)
                    delay, looks = FIRST_LOOK_S, 0
            await asyncio.sleep(delay)  # paces asking while Redis is away, or has not what it announced
            delay = min(delay * 2, LONGEST_LOOK_S)

    async def _fill_once(self) -> int:
        """How many announced entries the log does not have, although it was read after they were announced.

        While 0 is the answer and notifications are pending, those came meanwhile.
        """
        self._dropped = False
        announced = len(self._pending or ())
        try:
            await self._read_missing()
        except ContinuityLost as error:
            await self._lose_continuity(error.info)
        if self._dropped:
            return 0
        arrived = len(self._pending or ())
        if self._drain_pending():
            return 0
        return max(0, announced - (arrived - len(self._pending or ())))

    def _pass_over_foreign(self, count: int) -> None:
        """Announced entries are missing from the log: Redis lost them, or another deployment announced them."""
        if self._pending is not None:
            logger.warning("session.announced_entries_missing session=%s entries=%d", self.session, count)
            del self._pending[:count]

    async def _read_missing(self) -> None:
        while True:
            entries = await self._store.read_after(self.session, self.position, BATCH, series=self.series)
            for entry in entries:
                self._advance(entry.position, entry, entry.position.stream_id.encode())
            if len(entries) < BATCH:
                self._read_until = self.position
                return

    def _drain_pending(self) -> bool:
        pending, self._pending = self._pending or [], None
        for index, payload in enumerate(pending):
            if not self._take(payload):
                self._pending = pending[index:]
                return False
        return True

    async def _lose_continuity(self, error: ErrorInfo) -> None:
        logger.warning(
            "session.continuity_lost session=%s position=%s", self.session, self.position.stream_id
        )
        self._reset(await self._store.open(self.session))
        for subscription in self._all():
            self._restart(subscription, error)

    def _reset(self, head: Head) -> None:
        self.series = head.series
        self.position = self._read_until = head.position
        self._last_id = head.position.stream_id.encode()
        self._open = OpenMessages(head.series)
        self._resolve_passing()

    def _advance(self, position: Position, entry: Entry | None, name: bytes) -> None:
        self.position = position
        self._last_id = name
        if entry is not None:
            self._fan_out(self._open.delivery(entry))
        if self._passing:
            self._resolve_passing()

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

    def forget_idle(self) -> None:
        """Drop state that is only needed while messages grow; call it periodically."""
        self._open.forget_idle()
        for subscription in self._all():
            subscription.forget_ended(self.position_of(subscription), self._open)

    # Fan-out

    def _fan_out(self, delivery: Delivery) -> None:
        for subscription in self._waiting:
            if subscription.state is State.HOLDING:
                self._hold(subscription, delivery)
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
            self._fan_out_singly(delivery)
            return
        slow: list[Subscription] = []
        whole: list[Subscription] = []
        for variant, members in self._live.items():
            if not members or (variant.is_selective and delivery.is_hidden(variant)):
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
            self._counters.delivered(len(members))
        for subscription in slow:
            self._stall(subscription, delivery.position)
        for subscription in whole:
            self._deliver_singly(subscription, delivery)

    def _hold(self, subscription: Subscription, delivery: Delivery) -> None:
        if subscription.keep(delivery) > MAX_HELD:
            subscription.mark_slow(subscription.delivered)
            # What a pause keeps back is read from the log when the pause is over, not again and again until then.
            if subscription.released and not subscription.pauses:
                self._catch_up_soon(subscription)

    def _fan_out_singly(self, delivery: Delivery) -> None:
        for subscription in [member for members in self._live.values() for member in members]:
            self._deliver_singly(subscription, delivery)

    def _deliver_singly(self, subscription: Subscription, delivery: Delivery) -> None:
        if delivery.position <= subscription.delivered:
            return
        match subscription.judge(delivery):
            case Verdict.SEND:
                self._write(subscription, delivery.frame(subscription.variant), delivery.position)
            case Verdict.AGGREGATE:
                self._suspend(subscription)
                # A resume from here gets this entry again: it is not delivered yet.
                subscription.hold(delivery.position.before)
                subscription.keep(delivery)
                self._flush(subscription)

    def _write(self, subscription: Subscription, frame: bytes, position: Position) -> None:
        subscription.write(frame)
        self._counters.delivered(1)
        if subscription.outlet.congested and subscription.state is State.LIVE:
            self._stall(subscription, position)

    def _stall(self, subscription: Subscription, delivered: Position) -> None:
        """The socket is full: stop writing until it has drained (P10)."""
        self._suspend(subscription)
        subscription.mark_slow(delivered)

    def _suspend(self, subscription: Subscription) -> None:
        self._live.get(subscription.variant, {}).pop(subscription, None)
        self._waiting[subscription] = None

    def _flush(self, subscription: Subscription) -> None:
        """Write what waits for a subscription, until a message's state must be read or nothing is left."""
        subscription.blocked = False
        while held := subscription.held:
            delivery = held[0]
            if not subscription.may_pass(delivery.position):
                break
            verdict = (
                subscription.judge(delivery) if delivery.position > subscription.delivered else Verdict.SKIP
            )
            if verdict is Verdict.AGGREGATE and delivery.ref is not None:
                self._want_aggregate(delivery.ref, subscription)
                return
            held.popleft()
            if verdict is Verdict.SEND:
                subscription.write(delivery.frame(subscription.variant))
                self._counters.delivered(1)
            subscription.delivered = max(subscription.delivered, delivery.position)
            if subscription.outlet.congested:
                subscription.mark_slow(subscription.delivered)
                return
        subscription.held = subscription.held or None
        if subscription.pauses:
            subscription.block()
            return
        self._waiting.pop(subscription, None)
        self._live.setdefault(subscription.variant, {})[subscription] = None
        self._latest_start = max(self._latest_start, subscription.start)
        subscription.go_live()

    # Aggregates

    def _want_aggregate(self, ref: Ref, subscription: Subscription) -> None:
        waiting = self._reading.get(ref)
        if waiting is not None:
            waiting.append(subscription)
            return
        self._reading[ref] = [subscription]
        self._tasks.start(self._read_aggregate(ref))

    async def _read_aggregate(self, ref: Ref) -> None:
        # A later waiter awaits a later entry, which this read may not contain.
        waiting = self._reading.pop(ref)
        aggregate: Aggregate | None = None
        try:
            found = await self._store.history.messages(self.session, [ref])
            if found and found[0].version is not None:
                aggregate = Aggregate(ref, found[0], parse_position(found[0].version.serial)[0])
        except TransportError as error:
            logger.warning("session.aggregate_failed session=%s error=%s", self.session, error)
            for subscription in waiting:
                if subscription.state is State.HOLDING:
                    subscription.mark_slow(subscription.delivered)
                    self._catch_up_soon(subscription, delay=0.2)
            return
        encoded: dict[tuple[Variant, Position], bytes] = {}
        for subscription in waiting:
            if subscription.state is State.HOLDING and subscription.held:
                self._deliver_aggregate(subscription, ref, aggregate, encoded)

    def _deliver_aggregate(
        self,
        subscription: Subscription,
        ref: Ref,
        aggregate: Aggregate | None,
        encoded: dict[tuple[Variant, Position], bytes],
    ) -> None:
        awaited = subscription.held[0] if subscription.held else None
        if awaited is None or awaited.ref != ref:
            return
        if aggregate is not None and not subscription.variant.passes(aggregate.message):
            self._pass_over(subscription, awaited, aggregate)
            return
        # A message that is gone has nothing to show; entries of it are passed over.
        version = awaited.position if aggregate is None else max(aggregate.version, awaited.position)
        subscription.seen[ref] = version
        self._ahead_until = max(self._ahead_until, version)
        if aggregate is not None:
            key = (subscription.variant, awaited.position)
            if key not in encoded:
                # The position is that of the entry it answers: others up to its version are yet to come.
                encoded[key] = encode_messages(
                    subscription.variant, awaited.position, self.series, [aggregate.message]
                )
            subscription.write(encoded[key])
            self._counters.delivered(1)
            self._learn(aggregate, subscription)
        self._flush(subscription)

    def _pass_over(self, subscription: Subscription, awaited: Delivery, aggregate: Aggregate) -> None:
        """The message turned out to be hidden. Not `seen`: a reader that gains the right needs it whole."""
        self._learn(aggregate, subscription)
        if subscription.held:
            subscription.held.popleft()
        subscription.delivered = max(subscription.delivered, awaited.position)
        self._flush(subscription)

    def _learn(self, aggregate: Aggregate, subscription: Subscription) -> None:
        message = self._open.learn(aggregate)
        for delivery in subscription.held or ():
            if delivery.ref == aggregate.ref:
                message = delivery.adopt(message)

    # Attachments

    def add(self, subscription: Subscription) -> None:
        """Hold entries for a subscription from here on."""
        subscription.hold(self.position)
        subscription.start = self.position
        self._waiting[subscription] = None

    def position_of(self, subscription: Subscription) -> Position:
        """Up to where a subscription has everything."""
        waits = subscription.state in (State.HOLDING, State.STALE)
        return subscription.delivered if waits else self.position

    def resume(self, subscription: Subscription, after: Position) -> None:
        """A held subscription has everything up to a position; that may be ahead of what was fanned out here."""
        subscription.start = subscription.delivered = after
        self._ahead_until = max(self._ahead_until, after)

    def note_seen(self, subscription: Subscription, created: Position, index: int, version: Position) -> None:
        """A message's state up to a version is being delivered to a subscription outside of the feed's order."""
        subscription.seen[Ref(created, index)] = version
        self._ahead_until = max(self._ahead_until, version)

    def show_as(self, subscription: Subscription, variant: Variant) -> None:
        """From here on frames of another variant. What exists already is delivered whole when it changes next."""
        here = self.position_of(subscription)
        members = self._live.get(subscription.variant, {})
        is_live = subscription in members
        members.pop(subscription, None)
        subscription.variant = variant
        subscription.begin_anew(here, self.position)
        self._latest_start = max(self._latest_start, subscription.start)
        if is_live:
            self._live.setdefault(variant, {})[subscription] = None

    def release(self, subscription: Subscription, backlog: Iterable[Delivery] = ()) -> None:
        """Deliver the backlog, what was held, and from then on everything."""
        subscription.released = True
        if subscription.state is State.STALE:
            self._catch_up_soon(subscription)
        elif subscription.state is State.HOLDING:
            subscription.precede(backlog)
            self._flush(subscription)

    def pause(self, subscription: Subscription) -> None:
        """Keep back what comes, until `proceed`: an answer has to leave first. Pauses add up."""
        subscription.pauses += 1
        if subscription.state is State.LIVE:
            self._suspend(subscription)
            subscription.hold(self.position)
            subscription.block()

    def clear(self, subscription: Subscription, until: Position) -> None:
        """Entries up to a position need not wait for the answer."""
        subscription.cleared = max(subscription.cleared, until)
        self._go_on(subscription)

    def proceed(self, subscription: Subscription) -> None:
        """The answer has left: end one pause."""
        subscription.pauses -= 1
        self._go_on(subscription)

    def _go_on(self, subscription: Subscription) -> None:
        """Deliver what no pause keeps back any more."""
        if subscription.blocked:
            self._flush(subscription)
        elif (
            subscription.state is State.STALE
            and subscription.released
            and not subscription.outlet.congested
            and (not subscription.pauses or subscription.cleared > subscription.delivered)
        ):
            self._catch_up_soon(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Stop delivering at once."""
        self._live.get(subscription.variant, {}).pop(subscription, None)
        self._waiting.pop(subscription, None)
        subscription.detach()

    def drained(self, subscription: Subscription) -> None:
        """The socket has room again: continue where it stalled."""
        if subscription.state is State.STALE:
            self._catch_up_soon(subscription)

    async def backlog(self, after: Position, until: Position) -> list[Delivery]:
        """Entries after a position up to another, conflated when there are many. Raises ContinuityLost."""
        return await read_backlog(self._store, self.session, self.series, after, until)

    async def shared_backlog(self, after: Position, until: Position) -> list[Delivery]:
        """The same for a subscription that begins at `after`, shared with others that do so at the same time."""
        if self._backlogs is None:
            self._backlogs = SharedBacklogs(self._store, self.session, self._tasks)
        return await self._backlogs.read(self.series, after, until)

    def _catch_up_soon(self, subscription: Subscription, delay: float = 0.0) -> None:
        subscription.hold(subscription.delivered)
        self._tasks.start(self._catch_up(subscription, self.position, delay))

    async def _catch_up(self, subscription: Subscription, until: Position, delay: float) -> None:
        # What was held is given up when there is too much of it; a newer catch-up takes over then.
        epoch = subscription.epoch
        while subscription.epoch == epoch and subscription.state is State.HOLDING:
            try:
                if delay:
                    await asyncio.sleep(delay)  # paces asking while Redis is away
                backlog = await self.backlog(subscription.delivered, until)
                if subscription.epoch != epoch:
                    return
            except ContinuityLost:
                reason = "entries were skipped because this client read too slowly; read the history"
                self._restart(subscription, error_info(Code.CONTINUITY_LOST_SLOW, reason))
                return
            except TransportError as error:
                logger.warning("session.catch_up_failed session=%s error=%s", self.session, error)
                delay = 0.5
            else:
                self.release(subscription, backlog)
                return

    def _restart(self, subscription: Subscription, error: ErrorInfo) -> None:
        """Continuity is lost: say so, and continue from here (section 5.4)."""
        if subscription.state is State.DETACHED:
            return
        self._suspend(subscription)
        subscription.held = None
        subscription.seen.clear()
        subscription.hold(self.position)
        subscription.start = self.position
        subscription.on_gap(Gap(self.position, error))
        self._flush(subscription)

    def _all(self) -> list[Subscription]:
        return [*self._waiting, *(member for members in self._live.values() for member in members)]
