"""One AG-UI run as a response: from its beginning, after a cursor, or after a snapshot of the conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

import orjson

from gateway.auth.authenticator import Credential
from gateway.http_api.agui_turns import Run
from gateway.http_api.event_stream import EventStream
from gateway.http_api.reader import Batch, SessionReader, is_known, turn_of_event
from gateway.services import Services
from selfhost_transport.errors import NotFound, TransportError
from selfhost_transport.turns.agui_messages import messages_of
from selfhost_transport.turns.agui_runs import (
    Pending,
    Span,
    chunks_of_run,
    finished,
    newest_span,
    pending_calls,
    span_from,
    span_of,
    started,
)
from selfhost_transport.turns.agui_stream import AguiStream, Sent
from selfhost_transport.turns.agui_units import EventJson
from selfhost_transport.turns.events import ChunkReceived
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.view import View
from selfhost_transport.wire.capability import Operation

_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_KEEPALIVE: Final = b": keep-alive\n\n"
MAX_MESSAGES: Final = 1000


@dataclass(frozen=True, slots=True)
class Follow:
    """How a run is to be told. `old`: the client is older than AG-UI 1.0; `newest`: the part of the turn it is at."""

    old: bool = False
    after: str | None = None
    newest: bool = False


async def follow_run(
    services: Services, credential: Credential, thread: str, run: Run, how: Follow
) -> EventStream:
    """The stream of a run; closing it cancels nothing. Raises NotFound, InvalidArgument, CapabilityError."""
    turn_id = run.turn_id or ""
    stream = AguiStream()
    if how.after is not None:
        stream.resume(how.after)
    reader = SessionReader(services, credential, thread, lambda tree: is_known(tree, turn_id))
    await reader.__aenter__()
    if reader.tree.turn(turn_id) is None:
        await reader.__aexit__()
        raise NotFound(f"this thread has no turn {turn_id}")
    response = _RunResponse(services, credential, reader, run, how, stream)
    return EventStream(response.body(how.after is None), response.release, _HEADERS)


async def connect(
    services: Services, credential: Credential, thread: str, run: Run, how: Follow
) -> EventStream:
    """The whole conversation as a snapshot, and what follows in the turn of `run`, if it has one."""
    credential.capability.require(Operation.HISTORY, thread)
    reader = await _whole(services, credential, thread, run.turn_id)
    response = _RunResponse(services, credential, reader, run, how, AguiStream())
    return EventStream(response.connected(), response.release, _HEADERS)


async def _whole(
    services: Services, credential: Credential, thread: str, turn_id: str | None
) -> SessionReader:
    reader = SessionReader(
        services,
        credential,
        thread,
        lambda tree: View(tree).is_read(MAX_MESSAGES) and (turn_id is None or is_known(tree, turn_id)),
    )
    return await reader.__aenter__()


class _RunResponse:
    """What is written to one reader."""

    def __init__(
        self,
        services: Services,
        credential: Credential,
        reader: SessionReader,
        run: Run,
        how: Follow,
        stream: AguiStream,
    ) -> None:
        self._services = services
        self._credential = credential
        self._reader = reader
        self._run = run
        self._how = how
        self._stream = stream
        self._position = ""
        # A stream that begins with a snapshot has no cursors: who connects again gets another snapshot.
        self._has_cursors = True
        # Where the run begins in its turn. Its answers were stored before it was followed.
        self._start = span_of(self._node(), run.run_id, run.after).start

    async def release(self) -> None:
        """Stop reading."""
        await self._reader.__aexit__()

    async def body(self, begins: bool) -> AsyncIterator[bytes]:
        """Server-sent events until the run ends. Where the gateway stops, the response ends without a last event."""
        try:
            if begins:
                yield self._write([(f"{self._stream.cursor}s", self._started())])
            written = self._write(self._sync())
            while True:
                if self._stream.must_restart:
                    written += await self._restart()
                yield written
                if (last := self._ending()) is not None:
                    yield last
                    return
                async for batch in self._reader.batches():
                    self._position = batch.position or self._position
                    written = self._write(self._take(batch)) or (b"" if batch.position else _KEEPALIVE)
                    if self._stream.must_restart:
                        break
                    yield written
                    if (last := self._ending()) is not None:
                        yield last
                        return
                else:
                    return
        except TransportError as error:
            yield self._write([(None, _failed(error))])
        finally:
            await self.release()

    async def connected(self) -> AsyncIterator[bytes]:
        """As `body`, after a snapshot."""
        self._has_cursors = False
        try:
            yield self._write([(None, self._started()), *self._snapshot()])
            if self._run.turn_id is None:
                yield self._write([(None, self._finished(None, suspended=False))])
                return
        except BaseException:
            await self.release()
            raise
        async for written in self.body(False):
            yield written

    # What is written

    def _started(self) -> EventJson:
        return started(self._reader.session, self._run.run_id, self._run.turn_id)

    def _node(self) -> Node | None:
        return self._reader.tree.run_node(self._run.turn_id or "")

    def _span(self) -> Span:
        if self._how.newest:
            return newest_span(self._node())
        return span_from(self._node(), self._start)

    def _sync(self) -> list[Sent]:
        return self._stream.sync(chunks_of_run(self._node(), self._span()))

    def _take(self, batch: Batch) -> list[Sent]:
        mine = [event for event in batch.events if turn_of_event(event) == self._run.turn_id]
        if batch.replaced or any(not isinstance(event, ChunkReceived) for event in mine):
            return self._sync()
        out: list[Sent] = []
        for event in mine:
            if isinstance(event, ChunkReceived):
                out += self._stream.feed(event.codec_message_id, event.chunk)
        return out

    def _snapshot(self) -> list[Sent]:
        self._stream.adopt(chunks_of_run(self._node(), self._span()))
        snapshot = messages_of(self._reader.tree, self._run.turn_id)
        return [(self._stream.cursor, {"type": "MESSAGES_SNAPSHOT", "messages": snapshot})]

    async def _restart(self) -> bytes:
        """An attempt was replaced: text can be taken back only by a snapshot of everything."""
        closing = [(None, event) for _, event in self._stream.close()]
        whole = await _whole(self._services, self._credential, self._reader.session, self._run.turn_id)
        await self._reader.__aexit__()
        self._reader = whole
        return self._write([*closing, *self._snapshot()])

    def _ending(self) -> bytes | None:
        run = self._reader.tree.turn(self._run.turn_id or "")
        span = self._span()
        if run is None or (span.until is None and not run.status.is_terminal):
            return None
        closing = self._stream.close()
        last = self._finished(span.until, suspended=span.until is not None)
        if last["type"] == "RUN_ERROR":
            closing = []
        return self._write([*closing, (f"{self._stream.cursor}$", last)])

    def _finished(self, until: str | None, *, suspended: bool) -> EventJson:
        run = self._reader.tree.turn(self._run.turn_id or "")
        pending = pending_calls(self._node(), until) if suspended else Pending()
        return finished(
            self._reader.session, self._run.run_id, run, pending, suspended=suspended, old=self._how.old
        )

    def _write(self, events: Iterable[Sent]) -> bytes:
        lines = b""
        for cursor, event in events:
            named = (
                f"id: {self._position}/{cursor}\n".encode()
                if cursor is not None and self._has_cursors
                else b""
            )
            lines += named + b"data: " + orjson.dumps(event) + b"\n\n"
        return lines


def waiting_turn(tree: SessionTree) -> str | None:
    """The newest shown turn, if it waits for people."""
    runs = View(tree).runs()
    return runs[-1].run_id if runs and runs[-1].status.value == "suspended" else None


def _failed(error: TransportError) -> EventJson:
    return {"type": "RUN_ERROR", "message": error.info.message, "code": str(error.info.code)}
