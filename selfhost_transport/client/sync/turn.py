"""A turn for programs without an event loop."""

from __future__ import annotations

from collections.abc import Iterator

from selfhost_transport.client.cancel_result import CancelResult
from selfhost_transport.client.session.content import Content
from selfhost_transport.client.session.stream import StreamPart, TurnStream
from selfhost_transport.client.session.turn import OpenCall, Turn
from selfhost_transport.client.sync.loop import LoopThread
from selfhost_transport.errors import ErrorInfo
from selfhost_transport.turns.chunks import TextDelta
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.ui import ConversationMessage
from selfhost_transport.turns.values import Json


class SyncTurnStream(Iterator[StreamPart]):
    """One reader of a turn: what was said so far, then every further part, until the turn ends."""

    def __init__(self, loop: LoopThread, stream: TurnStream) -> None:
        self._loop = loop
        self._stream = stream

    def __repr__(self) -> str:
        return "<SyncTurnStream: iterate over it, or over its `text()`>"

    def __next__(self) -> StreamPart:
        part = self._loop.run(self._following())
        if part is None:
            raise StopIteration
        return part

    def text(self) -> Iterator[str]:
        """Only the chunks of text, for printing as they come; see `TurnStream.text`."""
        for part in self:
            if isinstance(part, TextDelta):
                yield part.delta

    async def _following(self) -> StreamPart | None:
        return await anext(self._stream, None)


class SyncTurn:
    """A turn; see `Turn`. What waits takes a `timeout` in seconds and raises TimeoutError."""

    def __init__(self, loop: LoopThread, turn: Turn) -> None:
        self._loop = loop
        self._turn = turn

    def __repr__(self) -> str:
        return repr(self._turn).replace("<Turn", "<SyncTurn", 1)

    @property
    def turn_id(self) -> str | None:
        """Its id; None until an agent has begun, where the namespace is not bound to one."""
        return self._turn.turn_id

    @property
    def status(self) -> TurnStatus:
        """Where it stands."""
        return self._loop.call(lambda: self._turn.status)

    @property
    def owner(self) -> str | None:
        """Verified client id of who started it."""
        return self._loop.call(lambda: self._turn.owner)

    @property
    def error(self) -> ErrorInfo | None:
        """Why it failed."""
        return self._loop.call(lambda: self._turn.error)

    @property
    def text(self) -> str:
        """The answer so far."""
        return self._loop.call(lambda: self._turn.text)

    @property
    def messages(self) -> list[ConversationMessage]:
        """The input and all outputs."""
        return self._loop.call(lambda: self._turn.messages)

    @property
    def calls(self) -> list[OpenCall]:
        """The tool calls that wait for a client; answer them with `approve` and `answer_tool`."""
        return self._loop.call(lambda: self._turn.calls)

    @property
    def stream(self) -> SyncTurnStream:
        """A new reader of the turn."""
        return SyncTurnStream(self._loop, self._loop.call(lambda: self._turn.stream))

    def wait(self, timeout: float | None = None) -> TurnStatus:
        """Wait for the end; how it ended. Raises TimeoutError, SessionClosed, TransportError."""

        async def ended() -> TurnStatus:
            return (await self._turn.ended).status

        return self._loop.run(ended(), timeout)

    def cancel(self) -> CancelResult:
        """End the turn."""
        return self._loop.run(self._turn.cancel())

    def steer(self, content: Content, *, id: str | None = None) -> None:  # noqa: A002
        """Add a message to the running turn."""
        self._loop.run(self._turn.steer(content, id=id))

    def answer_tool(self, call: OpenCall, output: Json) -> None:
        """Give the result of a tool that clients run; the turn resumes."""
        self._loop.run(call.answer(output))

    def approve(self, call: OpenCall, approved: bool = True, *, reason: str | None = None) -> None:
        """Allow or refuse a tool call; the turn resumes."""
        self._loop.run(call.approve(approved, reason=reason))
