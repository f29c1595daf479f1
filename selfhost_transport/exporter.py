"""Every turn that ends, with its whole messages, to a function of the application's: its own database, say (HYD-1, HYD-7).

At least once: a turn whose function did not return is given again, to this process or another one, with the same ids.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from selfhost_transport.errors import InvalidArgument, TransportError
from selfhost_transport.hooks import call_hook
from selfhost_transport.settings import Settings, load_settings
from selfhost_transport.store.ended_turns import Ended, EndedTurns, LeasedElsewhere
from selfhost_transport.store.history import HistoryReader
from selfhost_transport.store.names import part
from selfhost_transport.store.stores import Stores
from selfhost_transport.store.turn_messages import TurnMessages, read_turn
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.ui import ConversationMessage, messages_to_json
from selfhost_transport.wire.serial import MAX_COUNTER, Position, format_position

logger = logging.getLogger(__name__)

DEFAULT_NAME: Final = "default"
DEFAULT_LEASE_S: Final = 30.0
DEFAULT_LIMIT: Final = 100_000
"""Turns per bucket that may wait for an exporter; about 200 bytes each."""
_RETRY_S: Final = 0.5
_LONGEST_RETRY_S: Final = 30.0
_LOOK_S: Final = 15.0
"""Turns that end are announced. All buckets are looked at this often besides, in case an announcement was lost."""


@dataclass(frozen=True, slots=True)
class EndedTurn:
    """A turn that ended. `messages` are its input and its output, whole, also where it was suspended in between.

    Empty if there is no new message, as for a regenerate that was cancelled at once. `position` is the
    channelSerial of its terminal. `resume_point` is where the stored session meets the live one once this turn is stored: what
    is not later is stored (`Seed`). `delivery` is 1, or more if an earlier attempt to export it did not return.
    """

    session: str
    turn_id: str
    status: TurnStatus
    agent: str
    # Verified client id; None: anonymous.
    owner: str | None
    position: str
    resume_point: str
    # When it ended, milliseconds since the epoch.
    time_ms: int
    messages: tuple[ConversationMessage, ...]
    # Retention took messages of the turn before they could be exported.
    truncated: bool
    delivery: int

    @property
    def seam(self) -> str:
        """Deprecated: `resume_point`."""
        warnings.warn("seam is deprecated: use resume_point", DeprecationWarning, stacklevel=2)
        return self.resume_point

    def to_json(self) -> dict[str, Any]:
        """What the `export` command writes; messages in the form of the JS SDK."""
        return {
            "session": self.session,
            "turnId": self.turn_id,
            "status": self.status.value,
            "agent": self.agent,
            "owner": self.owner,
            "position": self.position,
            "resumePoint": self.resume_point,
            # Its former name, for one release.
            "seam": self.resume_point,
            "timestamp": self.time_ms,
            "truncated": self.truncated,
            "messages": messages_to_json(self.messages),
        }


Export = Callable[[EndedTurn], Awaitable[object] | object]
"""Stores one turn; a plain function runs in a thread. Must be safe to repeat: store under `turn_id`, or under the ids
of the messages."""


@dataclass(frozen=True, slots=True)
class ExporterStatistics:
    """What one exporter process has done. `failed`: times its function raised.

    `dropped`: turns lost to this exporter because more than its limit waited.
    """

    exported: int
    failed: int
    dropped: int


class TurnExporter:
    """Gives ended turns of all agents to `run`'s function, those of a session in the order in which they ended.

    `name` is the exporter: its queue begins when it is run for the first time, and continues where it was when it is run
    again, by any number of processes at once, which share the buckets. Each name gets every turn. A turn is given again
    when its function raised or its process made no progress for `lease_s` seconds; until it is exported, no later one of
    its bucket is given. At most `limit` turns wait per bucket; the oldest go then, which is counted and logged. Raises
    InvalidArgument for a name or number out of range.
    """

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        name: str = DEFAULT_NAME,
        lease_s: float = DEFAULT_LEASE_S,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        if lease_s <= 0 or limit < 1:
            raise InvalidArgument("lease_s is a number of seconds above 0, limit at least 1")
        self.settings = load_settings(redis=settings) if isinstance(settings, str) else settings
        self.name = name
        # Set once turns that end are sure to be queued.
        self.ready = asyncio.Event()
        self._lease_s = lease_s
        self._limit = limit
        self._exported = 0
        self._failed = 0
        self._dropped = 0
        self._begin()

    def _begin(self) -> None:
        """Start with nothing of an earlier run, whose loop may be closed, nor the `stop` that ended it."""
        self._ended = False
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        # Buckets that may hold turns; an ordered set.
        self._dirty: dict[int, None] = {}
        # Buckets whose next turn could not be exported a moment ago.
        self._paused: set[int] = set()
        # Buckets that are looked at when the lease of another process ends.
        self._leased: set[int] = set()
        # What the function raised last.
        self._error: Exception | None = None

    def statistics(self) -> ExporterStatistics:
        """A snapshot, for metrics and logs."""
        return ExporterStatistics(self._exported, self._failed, self._dropped)

    def stop(self) -> None:
        """Take no more turns; `run` returns once the one at work is exported."""
        self._stop.set()
        self._changed.set()

    async def run(self, export: Export, *, once: bool = False) -> None:
        """Export until `stop`, or, with `once`, what waits now; may be called again once it has returned.

        What `export` raises is logged and the turn given again later; with `once` the last such error is raised in the
        end. Redis being away is survived, except at the start. Raises StoreUnavailable, StoreFull, InvalidArgument.
        """
        if self._ended:
            self._begin()
        try:
            await self._export_all(export, once=once)
        finally:
            self._ended = True
            # Waiters for the next run must not be released by this one.
            self.ready = asyncio.Event()

    async def _export_all(self, export: Export, *, once: bool) -> None:
        settings = self.settings or load_settings()
        stores = await Stores.open(settings)
        keys, queue = stores.keys, stores.ended_turns(self.name)
        subscriber = stores.subscriber(on_reconnect=lambda: self._look_at(range(keys.buckets)))
        try:
            await queue.open(self._limit)
            await asyncio.gather(
                *(
                    subscriber.subscribe(f"{base}ended:{part(self.name)}", self._on_ended(bucket))
                    for bucket, base in enumerate(keys.bases())
                )
            )
            self.ready.set()
            await self._work(queue, stores.history, range(keys.buckets), export, once=once)
        finally:
            await subscriber.close()
            await stores.close()

    async def _work(
        self, queue: EndedTurns, history: HistoryReader, buckets: range, export: Export, *, once: bool
    ) -> None:
        while not self._stop.is_set():
            self._look_at(buckets)
            await self._log_dropped(queue)
            await self._empty(queue, history, export)
            if once:
                break
            until = asyncio.get_running_loop().time() + _LOOK_S
            while not self._stop.is_set() and await self._woken(until):
                await self._empty(queue, history, export)
        if once and self._error is not None:
            raise self._error

    async def _woken(self, until: float) -> bool:
        """Wait for a turn to end, or to be stopped; False at a loop time."""
        try:
            async with asyncio.timeout_at(until):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    async def _empty(self, queue: EndedTurns, history: HistoryReader, export: Export) -> None:
        """Export until no bucket is known to hold a turn."""
        while self._dirty and not self._stop.is_set():
            bucket = next(iter(self._dirty))
            # Last in line from here on, so that no bucket waits for another one to be empty.
            del self._dirty[bucket]
            try:
                taken = await queue.take(bucket, int(self._lease_s * 1000))
                if isinstance(taken, LeasedElsewhere):
                    self._look_at_end_of(bucket, taken)
                elif taken is not None:
                    self._dirty[bucket] = None
                    await self._export(queue, taken, await self._prepared(history, taken), export)
            except TransportError as error:
                logger.warning("export.store_failed exporter=%s error=%s", self.name, error)
                self._dirty[bucket] = None
                await asyncio.sleep(_RETRY_S)  # paces trying while Redis is away

    async def _prepared(self, history: HistoryReader, ended: Ended) -> Any:
        """What `export` is called with."""
        return _turn(ended, await read_turn(history, ended))

    async def _export(self, queue: EndedTurns, ended: Ended, turn: Any, export: Callable[[Any], Any]) -> None:
        renewing = asyncio.create_task(self._renew(queue, ended), name=f"export {ended.turn_id}")
        try:
            await call_hook(export, turn)
        except Exception as error:
            self._failed += 1
            self._error = error
            self._log_failed(ended, error)
            self._pause(ended)
            return
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        await queue.done(ended)
        self._exported += 1

    def _log_failed(self, ended: Ended, error: Exception) -> None:
        logger.warning(
            "export.failed session=%s turn=%s delivery=%d",
            ended.session,
            ended.turn_id,
            ended.delivery,
            exc_info=error,
        )

    def _pause(self, ended: Ended) -> None:
        """Try a turn that could not be exported again after a while, longer each time."""
        pause_s = min(_RETRY_S * 2 ** min(ended.delivery - 1, 10), _LONGEST_RETRY_S, self._lease_s)
        self._dirty.pop(ended.bucket, None)
        self._paused.add(ended.bucket)
        asyncio.get_running_loop().call_later(pause_s, self._resume, ended.bucket)

    def _look_at_end_of(self, bucket: int, leased: LeasedElsewhere) -> None:
        """Look at a bucket when a lease ends: nothing announces that another process is gone."""
        if bucket in self._leased:
            return
        self._leased.add(bucket)
        asyncio.get_running_loop().call_later((leased.left_ms + 1) / 1000, self._lease_over, bucket)

    def _lease_over(self, bucket: int) -> None:
        self._leased.discard(bucket)
        self._look_at((bucket,))

    def _resume(self, bucket: int) -> None:
        self._paused.discard(bucket)
        self._look_at((bucket,))

    async def _renew(self, queue: EndedTurns, ended: Ended) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                if not await queue.renew(ended):
                    logger.warning("export.taken_over turn=%s", ended.turn_id)
                    return
            except TransportError as error:
                logger.warning("export.not_renewed turn=%s error=%s", ended.turn_id, error)

    async def _log_dropped(self, queue: EndedTurns) -> None:
        """Make sure that turns are queued, also after Redis lost its data, and log those that were dropped."""
        try:
            await queue.open(self._limit)
            dropped = await queue.dropped()
        except TransportError as error:
            logger.warning("export.store_failed exporter=%s error=%s", self.name, error)
            return
        if dropped > self._dropped:
            logger.error("export.dropped exporter=%s turns=%d", self.name, dropped)
        self._dropped = dropped

    def _on_ended(self, bucket: int) -> Callable[[bytes], None]:
        return lambda payload: self._look_at((bucket,))

    def _look_at(self, buckets: Iterable[int]) -> None:
        self._dirty.update(dict.fromkeys(bucket for bucket in buckets if bucket not in self._paused))
        self._changed.set()


def _resume_point(ended: Ended) -> Position:
    if ended.open == ended.last:
        return ended.last
    ms, counter = ended.open
    return Position(ms, counter - 1) if counter > 0 else Position(ms - 1, MAX_COUNTER)


def _turn(ended: Ended, read: TurnMessages) -> EndedTurn:
    return EndedTurn(
        session=ended.session,
        turn_id=ended.turn_id,
        status=ended.status,
        agent=ended.agent,
        owner=ended.owner or None,
        position=format_position(ended.last, ended.epoch),
        resume_point=format_position(_resume_point(ended), ended.epoch),
        time_ms=ended.last.ms,
        messages=read.messages,
        truncated=read.truncated,
        delivery=ended.delivery,
    )
