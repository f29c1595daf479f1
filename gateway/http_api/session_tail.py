"""One session read into a conversation tree for all HTTP streams of it in this process, and the streams that send the same.

Readers of one turn that have been sent the same are in step: what comes next is made into bytes once, for all of them.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

from gateway.background import Background
from gateway.commands.branch import read_back
from gateway.fanout.delivery import Variant, bare
from gateway.fanout.feed import SessionFeed
from gateway.fanout.hub import SessionHub
from gateway.fanout.subscription import Gap, Subscription
from gateway.http_api.pull_outlet import PullOutlet
from gateway.http_api.reader import turn_of_event
from gateway.services import Services
from selfhost_transport.errors import ErrorInfo, TransportError
from selfhost_transport.store.history import Query
from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.events import ChunkReceived, TreeEvent
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.withholding import Hidden, shown
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import decode_frame

logger = logging.getLogger(__name__)

Enough = Callable[[SessionTree], bool]
"""Whether the tree reaches back far enough for a reader."""
_FIRST_PAGE: Final = 50
_LARGE: Final = 5_000
"""Entries after which new readers begin a tree of their own, so that none grows for as long as anyone reads."""
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Change:
    """What one entry changed. `replaced`: the tree was read anew, `events` are only what it does not keep."""

    position: str
    events: Sequence[TreeEvent]
    replaced: bool = False

    def of_turn(self, turn_id: str) -> list[TreeEvent]:
        """The events that are about one turn."""
        return [event for event in self.events if turn_of_event(event) == turn_id]


class TurnOutput(ABC):
    """How far a turn has been sent in one protocol, and what is to be sent next."""

    turn_id: str
    must_restart = False
    """Whether the turn no longer consists of what was sent, so that only a new beginning helps."""

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """What it is of: the protocol, and the turn."""

    @property
    @abstractmethod
    def state(self) -> Hashable | None:
        """How far it is. Two of one tree with equal states send the same from now on; None: not to be compared now."""

    @abstractmethod
    def sync(self, tree: SessionTree, position: str) -> bytes:
        """What is missing, by what the turn is now."""

    @abstractmethod
    def feed(self, tree: SessionTree, change: Change) -> bytes:
        """What is missing, by what changed just now; `sync` was called before."""

    @abstractmethod
    def is_over(self, tree: SessionTree) -> bool:
        """Whether there is nothing more to send."""

    @abstractmethod
    def close(self, tree: SessionTree) -> bytes:
        """What is sent last."""


class InStep:
    """Readers that get the same bytes."""

    def __init__(self, output: TurnOutput) -> None:
        self.output = output
        self.members: dict[TailReader, None] = {}
        self.is_over = False
        # The session lost the turn.
        self.is_lost = False

    @property
    def is_done(self) -> bool:
        """Whether nothing more is sent to those in step."""
        return self.is_over or self.is_lost or self.output.must_restart

    def take(self, tree: SessionTree, change: Change) -> None:
        """Send all members what changed."""
        if tree.turn(self.output.turn_id) is None:
            self.is_lost = True
            for member in self.members:
                member.outlet.wake()
            return
        written = self.output.feed(tree, change)
        if not self.output.must_restart and self.output.is_over(tree):
            written += self.output.close(tree)
            self.is_over = True
        if written:
            for member in self.members:
                member.outlet.write(written)
        if self.is_done:
            for member in self.members:
                member.outlet.wake()
        else:
            for member in [member for member in self.members if member.outlet.congested]:
                # It goes on from here at its own pace, by what the turn is by then.
                member.fall_behind(copy.deepcopy(self.output))


class SessionTail:
    """A session's tree, growing, and who reads it."""

    # As the outlet of a subscription: it takes everything at once.
    congested = False

    def __init__(self, services: Services, session: str, hidden: Hidden, *, reads_back: bool) -> None:
        self.session = session
        self.tree = SessionTree(session)
        self.position = ""
        self.readers: dict[TailReader, None] = {}
        self.is_large = False
        # While history is read into it, the tree is ahead of what its readers were sent.
        self.is_quiet = False
        self._services = services
        self._reads_back = reads_back
        self._query = Query(limit=_FIRST_PAGE, visible=shown(hidden, conversation=True))
        self._subscription = Subscription(
            self, Variant(Format.JSON, session, hidden, envelope=bare), self._on_gap
        )
        self._feed: SessionFeed | None = None
        self._steps: dict[Hashable, InStep] = {}
        self._lock = asyncio.Lock()
        self._entries = 0
        self._transient: list[TreeEvent] = []
        self._is_whole = asyncio.Event()
        self._is_whole.set()
        self._background = Background("session tail")
        # Why nothing more comes.
        self.ended_by: ErrorInfo | None = None

    async def start(self) -> None:
        """Follow the log. Raises StoreUnavailable."""
        async with self._lock:
            if self._feed is None:
                self._feed = await self._services.hub.join(self.session, self._subscription)
                self._subscription.release()

    def stop(self) -> None:
        """Stop following the log: there is no reader left."""
        feed, self._feed = self._feed, None
        if feed is not None:
            self._services.hub.leave(feed, self._subscription)

    async def read_back(self, enough: Enough) -> None:
        """Read the history until the tree holds enough, or there is no more. Raises StoreUnavailable."""
        async with self._lock:
            tree = self.tree
            if self._reads_back and not enough(tree):
                self.is_quiet = True
                try:
                    await read_back(self._services.sessions, tree, self._query, lambda: enough(tree))
                finally:
                    if self._is_whole.is_set():
                        self._speak_again()
        await self._is_whole.wait()

    def in_step(self, output: TurnOutput) -> InStep | None:
        """Readers that were sent as much as this; a new group where there are none. None: it has to go alone for now."""
        state = None if self.is_quiet else output.state
        if state is None:
            return None
        step = self._steps.get(output.key)
        if step is None:
            step = self._steps[output.key] = InStep(output)
        return step if step.output is output or step.output.state == state else None

    def leave(self, step: InStep, reader: TailReader) -> None:
        """A reader goes on alone, or ends."""
        step.members.pop(reader, None)
        if not step.members:
            self._drop(step)

    # As the outlet of a subscription

    def write(self, frame: bytes) -> None:
        """Take one frame."""
        decoded = decode_frame(frame.decode(), Format.JSON)
        self.position = decoded.channel_serial or self.position
        events: list[TreeEvent] = []
        for message in decoded.messages or ():
            events += self.tree.apply(message)
        self._entries += 1
        self.is_large = self.is_large or self._entries > _LARGE
        if self.is_quiet:
            self._transient += [event for event in events if _is_transient(event)]
        elif events:
            self._notify(Change(self.position, events))

    def _notify(self, change: Change) -> None:
        turns = {turn_of_event(event) for event in change.events}
        for step in list(self._steps.values()):
            if change.replaced or step.output.turn_id in turns:
                step.take(self.tree, change)
                if step.is_done:
                    self._drop(step)
        for reader in self.readers:
            if reader.step is None:
                reader.outlet.wake()

    def _speak_again(self) -> None:
        """Let readers compare with the whole tree; what a tree does not keep is handed to them."""
        self.is_quiet = False
        transient, self._transient = self._transient, []
        self._notify(Change(self.position, transient, replaced=True))

    def _drop(self, step: InStep) -> None:
        if self._steps.get(step.output.key) is step:
            del self._steps[step.output.key]

    # Lost continuity

    def _on_gap(self, gap: Gap) -> None:
        self.ended_by = gap.error if gap.is_end else None
        logger.info("tail.continuity_lost session=%s position=%s", self.session, gap.position.stream_id)
        self.tree, self.is_quiet = SessionTree(self.session), True
        if self._is_whole.is_set():
            self._is_whole.clear()
            self._background.start(self._read_again())

    async def _read_again(self) -> None:
        """Read everything anew that the readers need, however often continuity is lost meanwhile."""
        async with self._lock:
            while self.readers and self._reads_back:
                tree = self.tree
                try:
                    await read_back(self._services.sessions, tree, self._query, partial(self._suffices, tree))
                except TransportError as error:
                    logger.warning("tail.read_failed session=%s error=%s", self.session, error)
                    await asyncio.sleep(_RETRY_S)  # Redis is away
                    continue
                if tree is self.tree:
                    break
            self._is_whole.set()
            self._speak_again()

    def _suffices(self, tree: SessionTree) -> bool:
        return all(reader.enough(tree) for reader in self.readers)


class TailReader:
    """One response's place at a tail. `enough`: how far back it needs the tree."""

    __slots__ = ("enough", "left", "outlet", "step", "tail")

    def __init__(self, enough: Enough) -> None:
        self.enough = enough
        self.outlet = PullOutlet()
        self.tail: SessionTail | None = None
        self.step: InStep | None = None
        # What it had been sent when it fell behind those it was in step with.
        self.left: TurnOutput | None = None

    def fall_behind(self, output: TurnOutput) -> None:
        """It does not read as fast as the others."""
        if self.step is not None and self.tail is not None:
            self.tail.leave(self.step, self)
        self.step, self.left = None, output


# By gateway: a process may run several. Not a member of `Services`, which is a layer below and does not know tails; a hub's
# tails end with it.
_TAILS: WeakKeyDictionary[SessionHub, dict[tuple[str, Hidden], SessionTail]] = WeakKeyDictionary()


async def join_tail(
    services: Services, session: str, hidden: Hidden, reader: TailReader, *, reads_back: bool
) -> SessionTail:
    """Let a reader read a session. Without `reads_back` it sees what comes from now on. Raises StoreUnavailable."""
    tails = _TAILS.setdefault(services.hub, {})
    tail = tails.get((session, hidden)) if reads_back else None
    if tail is None or tail.is_large:
        tail = SessionTail(services, session, hidden, reads_back=reads_back)
        if reads_back:
            tails[session, hidden] = tail
    tail.readers[reader] = None
    reader.tail = tail
    try:
        await tail.start()
        await tail.read_back(reader.enough)
    except BaseException:
        leave_tail(services, hidden, reader)
        raise
    return tail


def leave_tail(services: Services, hidden: Hidden, reader: TailReader) -> None:
    """The reader ends."""
    tail, reader.tail = reader.tail, None
    if tail is None:
        return
    if reader.step is not None:
        tail.leave(reader.step, reader)
        reader.step = None
    tail.readers.pop(reader, None)
    if not tail.readers:
        tail.stop()
        tails = _TAILS.get(services.hub, {})
        if tails.get((tail.session, hidden)) is tail:
            del tails[tail.session, hidden]


def _is_transient(event: TreeEvent) -> bool:
    return (
        isinstance(event, ChunkReceived) and isinstance(event.chunk, c.Data) and bool(event.chunk.transient)
    )
