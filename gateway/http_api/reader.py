"""A session read into a conversation tree for one HTTP response: its history, then what follows, without a gap."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from weakref import ref

from gateway.auth.authenticator import Credential
from gateway.commands.branch import read_back
from gateway.fanout.delivery import Variant, bare
from gateway.fanout.feed import SessionFeed
from gateway.fanout.subscription import Gap, Subscription
from gateway.http_api.pull_outlet import PullOutlet, patience_s, refusal
from gateway.services import Services
from selfhost_transport.errors import CapabilityError, ContinuityLost, ErrorInfo, TransportError
from selfhost_transport.store.history import Query
from selfhost_transport.turns.events import ChunkReceived, OutputReplaced, TreeEvent, TurnChanged
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.withholding import shown
from selfhost_transport.wire.actions import Flag
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import decode_frame

_FIRST_PAGE = 50
_SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class TreeChanges:
    """What arrived together. `position`: up to where the tree is now, None when nothing came for a while.

    `replaced`: continuity was lost and the tree was read again; what `events` say is not all that changed.
    """

    position: str | None
    events: list[TreeEvent] = field(default_factory=list)
    replaced: bool = False


class SessionReader:
    """Use as a context manager. `tree` holds the session as far back as `enough` asked for, and grows.

    `waits`: its reader waits for what happens, so that it counts as an event stream of the caller.
    """

    def __init__(
        self,
        services: Services,
        credential: Credential,
        session: str,
        enough: Callable[[SessionTree], bool],
        *,
        waits: bool = False,
    ) -> None:
        self.session = session
        self.tree = SessionTree(session)
        self._services = services
        self._credential = credential
        self._enough = enough
        self._waits = waits
        self._hidden = services.hidden_from(credential, session)
        self._outlet = PullOutlet()
        # Weak: the reader holds its subscription, and in a circle both would keep the tree until the collector comes by.
        weakly = ref(self)
        self._subscription = Subscription(
            self._outlet,
            Variant(Format.JSON, session, self._hidden, envelope=bare),
            lambda gap: reader._on_gap(gap) if (reader := weakly()) is not None else None,
        )
        self._feed: SessionFeed | None = None
        self._lost = False
        # Why nothing more comes.
        self._ended_by: ErrorInfo | None = None

    async def __aenter__(self) -> SessionReader:
        """Start reading. Raises CapabilityError without the right to subscribe, StoreUnavailable."""
        self._credential.capability.require(Operation.SUBSCRIBE, self.session)
        await self._services.admit_stream(self._credential, self.session, self._outlet, counts=self._waits)
        try:
            self._feed = await self._services.hub.join(self.session, self._subscription)
        except BaseException:
            self._services.release_stream(self._outlet)
            raise
        self._services.board.count(self.session, None, Flag.SUBSCRIBE, self._credential.identity.client_id)
        try:
            await self._read_history()
        except BaseException:
            await self.__aexit__()
            raise
        self._subscription.release()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._feed is None:
            return
        feed, self._feed = self._feed, None
        self._services.release_stream(self._outlet)
        self._services.board.count(self.session, Flag.SUBSCRIBE, None, self._credential.identity.client_id)
        self._services.hub.leave(feed, self._subscription)

    async def batches(self) -> AsyncIterator[TreeChanges]:
        """What follows, until the gateway stops. Raises the TransportError of credentials that have expired."""
        while not self._outlet.ended:
            taken = await self._outlet.take(patience_s(self._credential))
            if (refused := refusal(self._services, self._credential)) is not None:
                raise TransportError.from_info(refused)
            position, events = None, list[TreeEvent]()
            for payload in taken:
                frame = decode_frame(payload.decode(), Format.JSON)
                position = frame.channel_serial or position
                for message in frame.messages or ():
                    events += self.tree.apply(message)
            replaced, self._lost = self._lost, False
            if self._ended_by is not None:
                raise TransportError.from_info(self._ended_by)
            if replaced:
                self.tree = SessionTree(self.session)
                await self._read_history()
            yield TreeChanges(position, events, replaced)
            self._subscription.drained()

    async def _read_history(self) -> None:
        """The tree as far back as it is needed. What a subscriber without the right to history sees begins now."""
        try:
            self._credential.capability.require(Operation.HISTORY, self.session)
        except CapabilityError:
            return
        query = Query(limit=_FIRST_PAGE, visible=shown(self._hidden, conversation=True))
        tree = self.tree
        await read_back(self._services.sessions, tree, query, lambda: self._enough(tree))

    def _on_gap(self, gap: Gap) -> None:
        self._lost = True
        self._ended_by = gap.error if gap.is_end else None
        self._outlet.wake()


async def running_turn(services: Services, credential: Credential, session: str) -> str | None:
    """The newest turn that an answer is being written for, or will be; not a suspended one."""
    running = {
        record.turn_id for record in await services.turns.active(session) if record.status != _SUSPENDED
    }
    if len(running) < 2:
        return next(iter(running), None)
    async with SessionReader(
        services, credential, session, lambda tree: all(tree.turn(turn) is not None for turn in running)
    ) as reader:
        known = [run.run_id for run in reader.tree.turns() if run.run_id in running]
    return known[-1] if known else None


def is_known(tree: SessionTree, turn_id: str) -> bool:
    """Whether a turn is in the tree from its beginning."""
    node = tree.run_node(turn_id)
    if node is None or node.run is None:
        return tree.turn(turn_id) is not None
    return node.run.is_started


def require_turn(tree: SessionTree, turn_id: str) -> None:
    """Raises ContinuityLost where a turn that was there is not any more: who follows it would wait without end."""
    if tree.turn(turn_id) is None:
        raise ContinuityLost(
            f"the service has lost the turn {turn_id}, and what it said; send the message again"
        )


def turn_of_event(event: TreeEvent) -> str | None:
    """The turn whose output or status an event is about."""
    if isinstance(event, TurnChanged):
        return event.turn.run_id
    return event.turn_id if isinstance(event, ChunkReceived | OutputReplaced) else None
