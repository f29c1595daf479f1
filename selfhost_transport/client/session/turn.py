"""A turn as a client holds it: known from the moment of sending, followed until its end (TRN-17)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import WeakSet

from selfhost_transport.client.cancel_result import CancelResult
from selfhost_transport.client.session import requests
from selfhost_transport.client.session.content import Content
from selfhost_transport.client.session.steer import Steer
from selfhost_transport.client.session.stream import StreamReset, TurnStream, chunks_of
from selfhost_transport.client.shared_future import SharedFuture
from selfhost_transport.errors import ErrorInfo, InvalidArgument, TransportError
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.turns.chunks import Chunk
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import APPROVAL_REQUESTED, INPUT_AVAILABLE, ConversationMessage, ToolPart
from selfhost_transport.turns.values import Absent, Json
from selfhost_transport.wire.frame import AckResult
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.receipts import TurnReceipt

_SHOWN: Final = 60
_OPEN: Final = frozenset({INPUT_AVAILABLE, APPROVAL_REQUESTED})


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A tool call that waits for a client. The first answer counts; a later one raises Conflict."""

    turn: Turn
    codec_message_id: str
    part: ToolPart

    @property
    def tool_call_id(self) -> str:
        """The model's id of the call."""
        return self.part.tool_call_id

    @property
    def tool_name(self) -> str:
        """Which tool is called."""
        return self.part.tool_name

    @property
    def input(self) -> Json:
        """The arguments; None while they are not known."""
        return None if isinstance(self.part.input, Absent) else self.part.input

    @property
    def needs_approval(self) -> bool:
        """Whether it needs approval; else it awaits the result of a client's own tool."""
        return self.part.state == APPROVAL_REQUESTED

    async def approve(self, approved: bool = True, *, reason: str | None = None) -> None:
        """Allow or refuse the call; the turn resumes. Raises Conflict, TurnEnded."""
        await self.turn.approve(self.codec_message_id, self.tool_call_id, approved, reason=reason)

    async def answer(self, output: Json) -> None:
        """Give the result of the tool; the turn resumes. Raises Conflict, TurnEnded."""
        await self.turn.answer_tool(self.codec_message_id, self.tool_call_id, output)


class TurnSession(Protocol):
    """What a turn needs of its session."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def codec(self) -> Codec: ...  # noqa: D102

    @property
    def tree(self) -> SessionTree: ...  # noqa: D102

    @property
    def client_id(self) -> str | None: ...  # noqa: D102

    @property
    def failure(self) -> TransportError | None: ...  # noqa: D102

    async def publish_input(self, messages: list[Message]) -> AckResult: ...  # noqa: D102

    async def cancel_turn(self, turn: Turn) -> CancelResult: ...  # noqa: D102


class Turn:
    """One turn of a session, one's own or observed. Get it from a send, or from `transport.turn`."""

    def __init__(
        self,
        session: TurnSession,
        turn_id: str | None,
        input_codec_message_id: str | None,
        *,
        sent_here: bool,
    ) -> None:
        # None until an agent has begun, where the namespace is not bound to one.
        self.turn_id = turn_id
        # Of the message that asked for the turn; with it a turn can be cancelled before it has an id (CAN-4).
        self.input_codec_message_id = input_codec_message_id
        # The service has the send; its value says whether the turn waits in a queue, and whom it interrupted.
        self.accepted: SharedFuture[TurnReceipt] = SharedFuture(self)
        # An agent has begun; a turn that is cancelled before counts as started and ended at once.
        self.started: SharedFuture[Turn] = SharedFuture(self)
        # The turn has its terminal.
        self.ended: SharedFuture[Turn] = SharedFuture(self)
        # Takes the send back if it has not left; None where it was not sent here.
        self.withdraw: Callable[[], bool] | None = None
        self._session = session
        self._sent_here = sent_here
        self._info: RunInfo | None = None
        # Unreferenced readers need not be fed.
        self._streams: WeakSet[TurnStream] = WeakSet()
        self._steers: list[Steer] = []
        if turn_id is not None and (info := session.tree.turn(turn_id)) is not None:
            self.update(info)

    def __repr__(self) -> str:
        text = self.text
        shown = repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}…"
        return f"<Turn {self.turn_id or '(no id yet)'} {self.status.value} text={shown}>"

    # State

    @property
    def status(self) -> TurnStatus:
        """Where the turn stands; pending while nothing is known of it but the send."""
        return TurnStatus.PENDING if self._info is None else self._info.shown_status

    @property
    def owner(self) -> str | None:
        """Verified client id of who started it; None when anonymous or not known yet."""
        if self._info is not None and self._info.client_id:
            return self._info.client_id
        return self._session.client_id if self._sent_here else None

    @property
    def sent_here(self) -> bool:
        """Whether it was sent through this transport."""
        return self._sent_here

    @property
    def own(self) -> bool:
        """Whether it was started under this client's id."""
        return self._sent_here or (self.owner is not None and self.owner == self._session.client_id)

    @property
    def agent(self) -> str | None:
        """Client id of the agent; None until it has begun."""
        return None if self._info is None else self._info.agent_client_id

    @property
    def error(self) -> ErrorInfo | None:
        """Why it failed; None otherwise. A cancelled turn has no error."""
        return None if self._info is None else self._info.error

    @property
    def info(self) -> RunInfo | None:
        """Everything the read model knows of the turn."""
        return self._info

    @property
    def invocation(self) -> dict[str, str]:
        """The body of the request that wakes an agent which is not a worker of this service."""
        trigger = self._session.tree.trigger(self.input_codec_message_id or "")
        if trigger is None or trigger.event_id is None:
            raise InvalidArgument("the message that started this turn is unknown here")
        return {"inputEventId": trigger.event_id, "sessionName": self._session.name}

    @property
    def messages(self) -> list[ConversationMessage]:
        """The input and all outputs, in order."""
        found: list[ConversationMessage] = []
        if self.input_codec_message_id is not None:
            asked = self._session.tree.message(self.input_codec_message_id)
            found += [asked] if asked is not None else []
        node = self._node()
        if node is not None:
            ids = {message.codec_message_id for message in found}
            found += [m.snapshot() for m in node.messages.values() if m.codec_message_id not in ids]
        return found

    @property
    def text(self) -> str:
        """The answer's text so far."""
        answers = (m.message for m in self.messages if m.message.role == h.ROLE_ASSISTANT)
        return "".join(message.text for message in answers)

    @property
    def calls(self) -> list[OpenCall]:
        """The tool calls that wait for a client: for the result of a tool, or for approval."""
        return [
            OpenCall(self, item.codec_message_id, part)
            for item in self.messages
            for part in item.message.parts
            if isinstance(part, ToolPart) and part.state in _OPEN and not part.provider_executed
        ]

    @property
    def stream(self) -> TurnStream:
        """A new reader: what was said so far, then every further part, until the turn ends."""
        stream = TurnStream(self)
        for chunk in chunks_of(self._node()):
            stream.push(chunk)
        if self.status.is_terminal:
            stream.end()
        elif self._session.failure is not None:
            stream.end(self._session.failure)
        else:
            self._streams.add(stream)
        return stream

    # Acting on it

    async def cancel(self) -> CancelResult:
        """End the turn; also right after the send, before it is accepted. One that has ended is left alone."""
        return await self._session.cancel_turn(self)

    def discard(self) -> bool:
        """Take back a send that has not left, for there was no connection; what awaits it raises Discarded.

        False: it is in flight or was accepted, and is left alone; `cancel` ends it.
        """
        return self.withdraw is not None and self.withdraw()

    async def steer(self, content: Content, *, id: str | None = None) -> Steer:  # noqa: A002
        """Add a message to the running turn. Raises TurnEnded when it has ended.

        Returns once the service has it; a steer repeated with the same `id` is the same one.
        """
        ids = requests.ids_for(id)
        messages = requests.steer(
            content, ids, self._require_id(), client_id=self._session.client_id,
            form=self._session.codec.input_form,
        )  # fmt: skip
        result = await self._session.publish_input(messages)
        steer = Steer(ids.codec_message_id, next(iter(result.serials), None))
        self._steers.append(steer)
        if self._info is not None:
            steer.update(self._info, self._node())
        return steer

    async def answer_tool(self, codec_message_id: str, tool_call_id: str, output: Json) -> None:
        """Give the result of a tool that clients run; the turn resumes. Raises TurnEnded."""
        message = inputs.tool_result(
            codec_message_id, self._require_id(), tool_call_id, output,
            event_id=inputs.new_id(), client_id=self._session.client_id, form=self._session.codec.input_form,
        )  # fmt: skip
        await self._session.publish_input(requests.answer(message, self._session.client_id))

    async def approve(
        self, codec_message_id: str, tool_call_id: str, approved: bool = True, *, reason: str | None = None
    ) -> None:
        """Allow or refuse a tool call; the turn resumes. Raises TurnEnded."""
        message = inputs.tool_approval_response(
            codec_message_id, self._require_id(), tool_call_id, approved,
            event_id=inputs.new_id(), client_id=self._session.client_id, reason=reason,
            form=self._session.codec.input_form,
        )  # fmt: skip
        await self._session.publish_input(requests.answer(message, self._session.client_id))

    # Called by the session

    def update(self, info: RunInfo) -> None:
        """The read model changed."""
        self._info = info
        self.turn_id = info.run_id
        self.input_codec_message_id = self.input_codec_message_id or info.input_codec_message_id
        if info.status is not TurnStatus.PENDING:
            self.started.set(self)
        for steer in self._steers:
            steer.update(info, self._node())
        if info.status.is_terminal:
            self.ended.set(self)
            for stream in list(self._streams):
                stream.end()
            self._streams.clear()

    def feed(self, chunk: Chunk) -> None:
        """More output."""
        for stream in list(self._streams):
            stream.push(chunk)

    def restart(self) -> None:
        """The reported output is no longer valid."""
        for stream in list(self._streams):
            stream.push(StreamReset())
            for chunk in chunks_of(self._node()):
                stream.push(chunk)

    def abandon(self, error: Exception) -> None:
        """No more events of the turn will arrive here."""
        for moment in (self.accepted, self.started, self.ended):
            moment.fail(error)
        for steer in self._steers:
            steer.outcome.fail(error)
        for stream in list(self._streams):
            stream.end(error)
        self._streams.clear()

    def _node(self) -> Node | None:
        return None if self.turn_id is None else self._session.tree.run_node(self.turn_id)

    def _require_id(self) -> str:
        if self.turn_id is None:
            raise InvalidArgument("the turn has no id yet; await turn.started first")
        return self.turn_id
