"""The client for programs without an event loop: the same verbs, each waiting for its answer."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from selfhost_transport.client.emitter import Unsubscribe
from selfhost_transport.client.session.content import Content
from selfhost_transport.client.session.events import CancelResult
from selfhost_transport.client.session.requests import SendPolicy
from selfhost_transport.client.session.stream import StreamPart
from selfhost_transport.client.session.turn import Turn
from selfhost_transport.client.transport import ClientTransport, CloseScope, EventName
from selfhost_transport.errors import ErrorInfo, SessionClosed
from selfhost_transport.turns.machine import TurnStatus
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.ui import ConversationMessage

Result = TypeVar("Result")


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="selfhost-transport", daemon=True)
        self._thread.start()
        self._process = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from the one that the thread runs in."""
        return os.getpid() != self._process

    def run(self, work: Coroutine[Any, Any, Result], timeout: float | None = None) -> Result:
        """Wait for a coroutine. Raises what it raises, TimeoutError after `timeout` seconds, SessionClosed."""
        try:
            self.check()
        except SessionClosed:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def check(self) -> None:
        """Raises SessionClosed when nothing can run here any more."""
        if self.is_forked:
            raise SessionClosed(
                "this transport was connected before the process was forked, and threads and connections do not survive "
                "a fork: connect in the child (gunicorn: post_fork or without --preload; Celery: worker_process_init)"
            )
        if self._loop.is_closed():
            raise SessionClosed("the transport is closed")

    def call(self, work: Callable[[], Result]) -> Result:
        """Call a function in the loop's thread and wait for it."""

        async def once() -> Result:
            return work()

        return self.run(once())

    def close(self) -> None:
        """Stop the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncTurn:
    """A turn; see `Turn`."""

    def __init__(self, loop: _Loop, turn: Turn) -> None:
        self._loop = loop
        self._turn = turn

    @property
    def turn_id(self) -> str | None:
        """Its id; None until an agent has begun, where the namespace is not bound to one."""
        return self._turn.turn_id

    @property
    def status(self) -> TurnStatus:
        """Where it stands."""
        return self._loop.call(lambda: self._turn.status)

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
    def stream(self) -> Iterator[StreamPart]:
        """What was said so far, then every further part, until the turn ends."""
        parts: AsyncIterator[StreamPart] = self._loop.call(lambda: self._turn.stream)

        async def following() -> StreamPart | None:
            return await anext(parts, None)

        while (part := self._loop.run(following())) is not None:
            yield part

    def wait(self, timeout: float | None = None) -> TurnStatus:
        """Wait for the end; how it ended. Raises TimeoutError, SessionClosed, TransportError."""

        async def ended() -> TurnStatus:
            return (await self._turn.ended).status

        return self._loop.run(ended(), timeout)

    def cancel(self) -> CancelResult:
        """End the turn."""
        return self._loop.run(self._turn.cancel())


class SyncClientTransport:
    """One client of one session, for threads; see `ClientTransport`. Use it as a context manager."""

    def __init__(self, url: str | None = None, *, within: float | None = 30.0, **arguments: Any) -> None:
        """Connect; arguments are those of `ClientTransport.connect`, and so are the errors."""
        self._loop = _Loop()
        try:
            self._transport = self._loop.run(_connected(url, within, arguments))
        except BaseException:
            self._loop.close()
            raise
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, cancel: CloseScope | None = None) -> None:
        """Leave the session; with `cancel` end turns first."""
        if not self._closed:
            self._closed = True
            if self._loop.is_forked:
                # The session is the parent's; here there is nothing to close.
                return
            self._loop.run(self._transport.close(cancel))
            self._loop.close()

    @property
    def connected(self) -> bool:
        """Whether there is a live connection at this moment."""
        return not self._closed and self._loop.call(lambda: self._transport.connected)

    @property
    def messages(self) -> list[ConversationMessage]:
        """The visible messages, oldest first."""
        return self._loop.call(lambda: self._transport.view.messages)

    @property
    def active_turns(self) -> Mapping[str, set[str]]:
        """Open turns, by client id of the owner and of the agent."""
        return self._loop.call(lambda: self._transport.active_turns)

    def send(
        self,
        content: Content,
        *,
        policy: SendPolicy | str | None = None,
        parent: str | None = None,
        id: str | None = None,  # noqa: A002
        timeout: float | None = None,
    ) -> SyncTurn:
        """Send a user's message; its turn once it is accepted. A send that timed out may be repeated by its id."""
        sending = self._transport.view.send(content, policy=policy, parent=parent, id=id)
        return SyncTurn(self._loop, self._loop.run(sending, timeout))

    def interrupt(self, content: Content, **chosen: Any) -> SyncTurn:
        """Cancel turns and send, in one atomic step; keywords as for `ClientTransport.interrupt`."""
        return SyncTurn(self._loop, self._loop.run(self._transport.interrupt(content, **chosen)))

    def cancel(self, turn_id: str | None = None, **chosen: Any) -> CancelResult:
        """End turns; keywords as for `ClientTransport.cancel`."""
        return self._loop.run(self._transport.cancel(turn_id, **chosen))

    def wait_for_turn(
        self, turn_id: str | None = None, *, timeout: float | None = None, **chosen: Any
    ) -> None:
        """Wait until none of the turns is open; keywords as for `ClientTransport.wait_for_turn`."""
        self._loop.run(self._transport.wait_for_turn(turn_id, **chosen), timeout)

    def turns(self) -> list[RunInfo]:
        """All turns known."""
        return self._loop.call(self._transport.turns)

    def turn(self, turn_id: str) -> SyncTurn:
        """The handle of any turn of the session."""
        return SyncTurn(self._loop, self._loop.call(lambda: self._transport.turn(turn_id)))

    def load_older(self, limit: int = 10) -> list[ConversationMessage]:
        """Show older messages; those, oldest first."""
        return self._loop.run(self._transport.view.load_older(limit))

    def on(self, event: EventName, callback: Callable[[Any], object]) -> Unsubscribe:
        """Be told of events, in the client's thread."""
        on: Callable[[Any, Callable[[Any], object]], Unsubscribe] = self._transport.on
        return self._loop.call(lambda: on(event, callback))


async def _connected(url: str | None, within: float | None, arguments: Mapping[str, Any]) -> ClientTransport:
    return await ClientTransport.connect(url, within=within, **arguments)
