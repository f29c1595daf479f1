"""What a client knows of its session: the tree, the turns in the caller's hands, and how deliveries get there.

Deliveries are held while the history is read, so that everything is folded in order, without gap or duplicate
(SES-11), and no subscriber sees a state that never was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from weakref import ref

from selfhost_transport import tracing
from selfhost_transport.client.cancel_result import CancelResult
from selfhost_transport.client.connection.driver import Connection
from selfhost_transport.client.connection.effects import Attached
from selfhost_transport.client.connection.state import ConnectionState, StateChange
from selfhost_transport.client.emitter import Emitter
from selfhost_transport.client.rest import RestClient
from selfhost_transport.client.session.events import Discontinuity, Entry
from selfhost_transport.client.session.history_loader import HistoryLoader
from selfhost_transport.client.session.long_waits import LongWaits
from selfhost_transport.client.session.past import Past, epoch_of
from selfhost_transport.client.session.publisher import Publisher
from selfhost_transport.client.session.requests import TurnFilter
from selfhost_transport.client.session.turn import Turn
from selfhost_transport.client.session.turn_handles import TurnHandles
from selfhost_transport.client.shared_future import SharedFuture
from selfhost_transport.errors import (
    ContinuityLost,
    Discarded,
    ErrorInfo,
    InvalidArgument,
    LogRewound,
    SessionClosed,
    TransportError,
)
from selfhost_transport.hooks import said
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.codecs import UI_MESSAGES
from selfhost_transport.turns.context import turn_id_for
from selfhost_transport.turns.events import StructureChanged, TreeEvent, TurnChanged
from selfhost_transport.turns.inputs import InputIds
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.frame import AckResult, Frame
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.receipts import TurnReceipt

_log = logging.getLogger(__name__)

# Status of a receipt: the turn waits for others of its session, as its policy says.
_QUEUED = "queued"


@dataclass(frozen=True, slots=True)
class Sent:
    """A send in flight. Await `receipt` (shielded) for the service's answer to this very send."""

    turn: Turn
    receipt: asyncio.Task[TurnReceipt]


class Session:
    """The state of one session in one client. Implements the connection's `Listener`."""

    def __init__(
        self, name: str, client_id: str | None, history_limit: int, codec: Codec = UI_MESSAGES
    ) -> None:
        self.name = name
        # The agent that the namespace is bound to; None: agents are ordinary participants.
        self.agent: str | None = None
        self.codec = codec
        self.tree = SessionTree(codec=codec)
        # Where delivery began; older messages came from the history.
        self.attach_serial = ""
        # Resolves when the session is attached and its history is read.
        self.ready: SharedFuture[None] = SharedFuture(self)
        # Why nothing more will come: closed, or refused for good.
        self.failure: TransportError | None = None
        self._dial_failed = False
        self.on_tree: Emitter[list[TreeEvent]] = Emitter(self.report_failure)
        self.on_error: Emitter[TransportError] = Emitter(self._error_subscriber_failed)
        self.on_discontinuity: Emitter[Discontinuity] = Emitter(self.report_failure)
        self.on_entry: Emitter[Entry] = Emitter(self.report_failure)
        self.on_state: Emitter[StateChange] = Emitter(self.report_failure)
        self.long_waits = LongWaits(name, self.report_failure)
        self.past = Past(self, history_limit)
        self._wanted_client_id = client_id
        self._connection: Connection | None = None
        self._publisher: Publisher | None = None
        self._loading: asyncio.Task[None] | None = None
        self._held: list[Message] = []
        self._turns = TurnHandles()
        self._waiting: set[asyncio.Future[None]] = set()
        self._sends: set[asyncio.Task[TurnReceipt]] = set()

    def use(self, connection: Connection, loader: HistoryLoader, rest: RestClient) -> None:
        """Say what to publish on and where to read the past."""
        self._connection, self.past.loader = connection, loader
        self._publisher = Publisher(self, connection, rest)

    @property
    def client_id(self) -> str | None:
        """Verified client id once connected, before that the one asked for; None is anonymous."""
        verified = self._connection.core.client_id if self._connection is not None else None
        return verified if verified is not None else self._wanted_client_id

    # Waiting

    @property
    def trouble(self) -> ErrorInfo | None:
        """The last failure of what the session is waiting for; None while nothing has failed."""
        reason = self._connection.core.reason if self._connection is not None else None
        loader = self.past.loader
        if reason is None and self._loading is not None and loader is not None:
            reason = loader.trouble.info if loader.trouble is not None else None
        return reason

    def why_waiting(self) -> str:
        """What the session is waiting for, in a sentence."""
        assert self._connection is not None
        gateway, reason = self._connection.endpoint.netloc, self.trouble
        why = f": {reason.message}" if reason is not None else ""
        if self._connection.core.state is not ConnectionState.CONNECTED:
            if gateway in why:
                return why.removeprefix(": ")
            return f"not connected to {gateway}{why}"
        if self._loading is not None:
            return f"reading the history from {gateway}{why}"
        return f"{gateway} has not answered{why}"

    def reporting(self, what: str) -> AbstractContextManager[None]:
        """Say why the block takes long, if it does."""
        return self.long_waits.reporting(what, self.why_waiting)

    # Turns

    def turn(self, turn_id: str) -> Turn:
        """The handle of a turn, the same object for as long as it is referenced."""
        found = self._turns.of_id(turn_id)
        if found is None:
            info = self.tree.turn(turn_id)
            found = Turn(self, turn_id, info.input_codec_message_id if info else None, sent_here=False)
            self._turns.add(found)
        return found

    def turn_for_input(self, codec_message_id: str, *, sent_here: bool = False) -> Turn:
        """The handle of the turn that an input asks for."""
        found = self._turns.of_input(codec_message_id)
        if found is None:
            turn_id = self.tree.turn_of(codec_message_id)
            if turn_id is None and self.agent is not None:
                turn_id = turn_id_for(self.name, codec_message_id)
            found = self._turns.of_id(turn_id)
            if found is None:
                found = Turn(self, turn_id, codec_message_id, sent_here=sent_here)
            self._turns.add(found, codec_message_id)
        return found

    def open_turns(self, chosen: TurnFilter) -> list[RunInfo]:
        """Turns that a filter names and that have not ended."""
        own = self.client_id
        return [
            turn
            for turn in self.tree.turns()
            if not turn.status.is_terminal
            and (
                self.turn(turn.run_id).sent_here
                if chosen.connection
                else chosen.names(turn.run_id, turn.client_id, own)
            )
        ]

    async def wait_for(self, chosen: TurnFilter) -> None:
        """Wait until no turn that the filter names is open (TRN-18). Raises SessionClosed, TransportError."""
        while self.open_turns(chosen):
            if self.failure is not None:
                raise self.failure
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(changed)
            try:
                await changed
            finally:
                self._waiting.discard(changed)

    # Publishing

    def send(self, messages: list[Message], ids: InputIds) -> Sent:
        """Publish an input that asks for a turn, and show it at once (OPT-1)."""
        publisher = self._ready_publisher()
        span = tracing.start_span("turn send", None, {"sht.session": self.name}, kind="PRODUCER")
        if (traced := tracing.traceparent_of(span)) is not None:
            messages = [h.with_transport_header(message, h.TRACEPARENT, traced) for message in messages]
        # The frame leaves in this call, so that a cancel made right after it comes after it.
        answer = publisher.publish(messages)
        if self.tree.owner_of(ids.codec_message_id) is None:
            self._notify(self.tree.insert_optimistic(messages))
        turn = self.turn_for_input(ids.codec_message_id, sent_here=True)
        turn.withdraw = lambda: publisher.withdraw(answer)
        receipt = asyncio.create_task(self._accept(turn, messages, ids.event_id, answer))
        self._sends.add(receipt)
        receipt.add_done_callback(self._sent)
        if span is not None:
            receipt.add_done_callback(lambda _: tracing.end_span(span))
        return Sent(turn, receipt)

    def _sent(self, receipt: asyncio.Task[TurnReceipt]) -> None:
        self._sends.discard(receipt)
        if not receipt.cancelled():
            # A caller that keeps only the turn learns of a refusal from it.
            receipt.exception()

    async def publish_input(self, messages: list[Message]) -> AckResult:
        """Publish an input that belongs to a running turn."""
        publisher = self._ready_publisher()
        return await publisher.until_stored(messages, publisher.publish(messages))

    async def cancel_turn(self, turn: Turn) -> CancelResult:
        """Cancel by the turn's id or, before it can be known, by the message that asked for it (CAN-4)."""
        input_id = turn.input_codec_message_id
        has_no_id = turn.turn_id is None if self.agent is None else not turn.started.done
        if input_id is not None and has_no_id:
            return await self._ready_publisher().publish_cancel({h.INPUT_CODEC_MESSAGE_ID: input_id})
        return await self.cancel(TurnFilter(turn_id=turn.turn_id))

    async def cancel(self, chosen: TurnFilter) -> CancelResult:
        """Cancel what a filter names; never behind a queue of sends (CAN-19).

        Raises InvalidArgument for own turns of an anonymous client.
        """
        return await self._ready_publisher().cancel(chosen)

    async def _accept(
        self, turn: Turn, messages: list[Message], event_id: str, answer: asyncio.Future[AckResult]
    ) -> TurnReceipt:
        assert self._publisher is not None
        try:
            result = await self._publisher.until_stored(messages, answer)
        except TransportError as error:
            self._refused(turn, event_id, error)
            raise
        receipt = result.turn or TurnReceipt(turn.turn_id or "", turn.status.value)
        turn.accepted.set(receipt)
        if turn.status is TurnStatus.PENDING and receipt.status != _QUEUED:
            why = partial(_why_not_begun, ref(turn), self.agent)
            self.long_waits.report_later("an agent to begin", why, turn.turn_id)
        return receipt

    def _refused(self, turn: Turn, event_id: str, error: TransportError) -> None:
        """Take back a send (OPT-4); one that repeats an accepted send leaves that one as it is."""
        self._notify(self.tree.remove_optimistic(event_id))
        if turn.accepted.done:
            return
        # Another send under the same id is a new attempt, with a handle of its own.
        self._turns.forget(turn)
        turn.abandon(error)
        if self.failure is None and not isinstance(error, Discarded):
            self.on_error.emit(error)

    def _ready_publisher(self) -> Publisher:
        self.require_ready()
        assert self._publisher is not None
        return self._publisher

    def require_ready(self) -> None:
        """Raises InvalidArgument before the session is attached, SessionClosed or the failure afterwards."""
        self.check_usable()
        if self._connection is None or not self.ready.done:
            raise InvalidArgument("the transport is not connected yet; use it inside `async with`")

    def check_usable(self) -> None:
        """Raises SessionClosed or the failure, once there is one."""
        if self.failure is not None:
            raise self.failure

    # Called by the connection

    def on_change(self, change: StateChange) -> None:
        """The state of the connection changed."""
        self._log_change(change)
        if change.current == "failed":
            info = change.reason or ErrorInfo(80000, 400, "the connection failed")
            self.give_up(TransportError.from_info(info))
        self.on_state.emit(change)

    def _log_change(self, change: StateChange) -> None:
        """The first dial in a row that fails is a warning: who mistyped an address should not wait in silence."""
        failed = (change.previous, change.current) == (
            ConnectionState.CONNECTING,
            ConnectionState.DISCONNECTED,
        )
        level = logging.WARNING if failed and not self._dial_failed else logging.DEBUG
        _log.log(level, "connection.%s session=%s reason=%s", change.current.value, self.name, change.reason)
        self._dial_failed = failed or (self._dial_failed and change.current is not ConnectionState.CONNECTED)

    def on_attached(self, attached: Attached) -> None:
        """Attached: continue, or read what may have been missed."""
        if attached.continuous:
            return
        if attached.first:
            self.agent = attached.params.get("turns")
            self.tree = self._new_tree()
        elif epoch_of(attached.serial) != epoch_of(self.attach_serial):
            # The session was deleted and made again: nothing known of it holds.
            self.tree = self._new_tree()
            self._turns.abandon(ContinuityLost("the session was deleted, and its turns with it"))
        elif LogRewound.matches(attached.error):
            # The last entries are gone; the history has the rest.
            self.tree = self._new_tree()
            self._turns.restart()
        self.attach_serial = attached.serial
        # What was held is older than the new position, so the history has it.
        self._held = []
        if self._loading is not None:
            self._loading.cancel()
        self._loading = asyncio.create_task(self._load(attached))

    def on_attach_refused(self, error: ErrorInfo) -> None:
        """The session may not be used with these credentials, or not at all."""
        self.give_up(TransportError.from_info(error))

    def on_frame(self, frame: Frame) -> None:
        """Messages arrived."""
        messages = frame.messages or []
        for index, message in enumerate(messages):
            _fill_in(frame, message, index)
        if self._loading is not None:
            self._held += messages
            return
        self._deliver(messages)

    def give_up(self, error: TransportError) -> None:
        """Nothing more will arrive: waiters fail with the reason."""
        if self.failure is not None:
            return
        self.failure = error
        if self._loading is not None:
            self._loading.cancel()
        self.ready.fail(error)
        self._turns.abandon(error)
        self._wake()
        if not isinstance(error, SessionClosed):
            self.on_error.emit(error)

    async def stop(self) -> None:
        """Wait for what runs in the background; the connection is closed, so that nothing continues for long."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        await self.past.stop()
        await asyncio.gather(*self._sends, return_exceptions=True)

    # Folding

    async def _load(self, attached: Attached) -> None:
        past: list[Message] = []
        try:
            past = await self.past.read(attached.serial)
        except TransportError as error:
            # Live only, then: the session is usable without its past (DEV-7).
            self.past.refused = error
            self.on_error.emit(error)
        except Exception as error:
            _log.exception("history.failed session=%s", self.name)
            self.past.refused = TransportError(f"the history could not be read: {error}", code=104011)
            self.on_error.emit(self.past.refused)
        self._loading = None
        for events in self.past.take_folded():
            self._notify(events)
        self.apply(past)
        if LogRewound.matches(attached.error) and self.past.refused is None:
            known = {turn.run_id for turn in self.tree.turns()}
            self._turns.abandon_unknown(known, LogRewound("Redis has lost this turn; send again"))
        held, self._held = self._held, []
        self._deliver(held)
        self.ready.set(None)
        if not attached.first:
            self.on_discontinuity.emit(Discontinuity(attached.error, attached.serial))

    def _new_tree(self) -> SessionTree:
        self.past.begin_again()
        return SessionTree(self.name if self.agent is not None else None, self.codec)

    def _deliver(self, messages: Sequence[Message]) -> None:
        if self.on_entry:
            for message in messages:
                position = message.version.serial if message.version is not None else message.serial
                self.on_entry.emit(Entry(position or "", message))
        if any(isinstance(event, StructureChanged) for event in self.apply(messages)):
            self.past.settle_later()

    def apply(self, messages: Sequence[Message]) -> list[TreeEvent]:
        """Put messages into the tree, and say so to the subscribers."""
        events = self.fold(messages)
        if events:
            self._notify(events)
        return events

    def fold(self, messages: Sequence[Message]) -> list[TreeEvent]:
        """Put messages into the tree; what that changed is not announced yet."""
        apply = self.tree.apply
        events: list[TreeEvent] = []
        for message in messages:
            try:
                events += apply(message)
            except Exception as error:
                # One entry that cannot be understood must not take the session with it (SES-13).
                self.report_failure(error)
        return events

    def _notify(self, events: list[TreeEvent]) -> None:
        for event in events:
            self._turns.update(event)
        if self.on_tree:
            self.on_tree.emit(events)
        if any(isinstance(event, TurnChanged) for event in events):
            self._wake()

    def _wake(self) -> None:
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_result(None)

    def report_failure(self, error: Exception) -> None:
        """Handling an entry raised, here or in a subscriber; everything else continues (104001)."""
        _log.error("entry.handling_failed session=%s", self.name, exc_info=error)
        failure = TransportError(
            f"handling an entry raised {type(error).__name__}: {said(error)}", code=104001
        )
        failure.__cause__ = error
        self.on_error.emit(failure)

    def _error_subscriber_failed(self, error: Exception) -> None:
        _log.error("subscriber.failed session=%s", self.name, exc_info=error)


def _fill_in(frame: Frame, message: Message, index: int) -> None:
    """What a compact frame says once for all its messages (protocol section 6.1)."""
    if message.id is None and frame.id is not None:
        message.id = f"{frame.id}:{index}"
    if message.connection_id is None:
        message.connection_id = frame.connection_id
    if message.timestamp is None:
        message.timestamp = frame.timestamp


def _why_not_begun(held: ref[Turn], agent: str | None) -> str | None:
    turn = held()
    if turn is None or turn.ended.done or turn.status is not TurnStatus.PENDING:
        return None
    if agent is None:
        return (
            "the session's namespace is bound to no agent ([[namespaces]] in the configuration of the gateway), and no "
            "agent among its participants has started"
        )
    return f"no worker has taken the turn: does one serve the agent {agent!r} on the same Redis and prefix?"
