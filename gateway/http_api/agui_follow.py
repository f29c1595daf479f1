"""One AG-UI run as a response: from its beginning, after a cursor, or after a snapshot of the conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from gateway.auth.authenticator import Credential
from gateway.http_api.agui_turns import Run
from gateway.http_api.event_stream import EventStream
from gateway.http_api.follower import Follower
from gateway.http_api.reader import is_known
from gateway.http_api.session_tail import Change, Enough, TurnOutput
from gateway.services import Services
from selfhost_transport.errors import NotFound, TransportError
from selfhost_transport.turns.agui_messages import messages_of
from selfhost_transport.turns.agui_state import state_of
from selfhost_transport.turns.agui_stream import AguiStream, SentEvent
from selfhost_transport.turns.agui_units import EventJson
from selfhost_transport.turns.events import ChunkReceived
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.run_spans import (
    Pending,
    RunSpan,
    chunks_of_run,
    finished,
    newest_span,
    pending_calls,
    span_from,
    span_of,
    started,
    usage_of_run,
)
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.capability import Operation

_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}
MAX_MESSAGES: Final = 1000


@dataclass(frozen=True, slots=True)
class Follow:
    """How a run is to be sent. `old`: the client is older than AG-UI 1.0; `newest`: the part of the turn it is at."""

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
    follower = Follower(services, credential, thread, lambda tree: is_known(tree, turn_id))
    await follower.start()
    if follower.tree.turn(turn_id) is None:
        await follower.release()
        raise NotFound(f"this thread has no turn {turn_id}")
    response = _RunResponse(follower, run, how)
    return EventStream(response.body(stream, begins=how.after is None), follower.release, _HEADERS)


async def connect(
    services: Services, credential: Credential, thread: str, run: Run, how: Follow
) -> EventStream:
    """The whole conversation as a snapshot, and what follows in the turn of `run`, if it has one."""
    credential.capability.require(Operation.HISTORY, thread)
    follower = Follower(services, credential, thread, _whole(run.turn_id))
    await follower.start()
    return EventStream(_RunResponse(follower, run, how).connected(), follower.release, _HEADERS)


def _whole(turn_id: str | None) -> Enough:
    return lambda tree: TreeView(tree).is_read(MAX_MESSAGES) and (turn_id is None or is_known(tree, turn_id))


class AguiOutput(TurnOutput):
    """A run as AG-UI's events. `start`: where it begins in its turn; `has_cursors`: its events have ids."""

    def __init__(
        self, turn_id: str, stream: AguiStream, start: str, *, newest: bool, has_cursors: bool
    ) -> None:
        self.turn_id = turn_id
        self.stream = stream
        self._start = start
        self._newest = newest
        self._has_cursors = has_cursors
        self.position = ""

    @property
    def key(self) -> Hashable:
        """The part of the turn, and whether events are named."""
        return "agui", self.turn_id, self._start, self._newest, self._has_cursors

    @property
    def state(self) -> Hashable | None:
        """The cursor says it all."""
        return None if self.must_restart else self.stream.cursor

    def sync(self, tree: SessionTree, position: str) -> bytes:
        """Texts leave as one event."""
        self.position = position or self.position
        return self.write(self._synced(tree))

    def feed(self, tree: SessionTree, change: Change) -> bytes:
        """Each event as it comes."""
        self.position = change.position or self.position
        mine = change.of_turn(self.turn_id)
        out: list[SentEvent] = []
        if change.replaced or any(not isinstance(event, ChunkReceived) for event in mine):
            out += self._synced(tree)
            mine = [event for event in mine if change.replaced]
        if not self.must_restart:
            for event in mine:
                if isinstance(event, ChunkReceived):
                    out += self.stream.feed(event.codec_message_id, event.chunk)
        return self.write(out)

    def is_over(self, tree: SessionTree) -> bool:
        """Ended, or suspended."""
        run = tree.turn(self.turn_id)
        return run is not None and (self.span(tree).until is not None or run.status.is_terminal)

    def close(self, tree: SessionTree) -> bytes:
        """The ends of what is open, before the last event; an error needs none."""
        run = tree.turn(self.turn_id)
        if run is not None and run.status is TurnStatus.FAILED and self.span(tree).until is None:
            return b""
        return self.write(self.stream.close())

    def span(self, tree: SessionTree) -> RunSpan:
        """The part of the turn that the run is."""
        node = tree.run_node(self.turn_id)
        return newest_span(node) if self._newest else span_from(node, self._start)

    def write(self, events: Iterable[SentEvent]) -> bytes:
        """Server-sent events."""
        lines = b""
        for cursor, event in events:
            is_named = cursor is not None and self._has_cursors
            lines += f"id: {self.position}/{cursor}\n".encode() if is_named else b""
            lines += b"data: " + orjson.dumps(event) + b"\n\n"
        return lines

    def _synced(self, tree: SessionTree) -> list[SentEvent]:
        out = self.stream.sync(chunks_of_run(tree.run_node(self.turn_id), self.span(tree)))
        self.must_restart = self.stream.must_restart
        # What is taken back is closed first.
        return [(None, event) for _, event in self.stream.close()] if self.must_restart else out


class _RunResponse:
    """What is written to one reader."""

    def __init__(self, follower: Follower, run: Run, how: Follow) -> None:
        self._follower = follower
        self._run = run
        self._how = how
        # A stream that begins with a snapshot has no cursors: who connects again gets another snapshot.
        self._has_cursors = True
        # Where the run begins in its turn. Its answers were stored before it was followed.
        self._start = span_of(self._node(), run.run_id, run.after).start

    async def body(self, stream: AguiStream, *, begins: bool) -> AsyncIterator[bytes]:
        """Server-sent events until the run ends. Where the gateway stops, the response ends without a last event."""
        output = self._output(stream)
        try:
            if begins:
                yield output.write([(f"{stream.cursor}s", self._started())])
            while True:
                async for written in self._follower.stream(output):
                    yield written
                ended = self._follower.ended_with
                if not isinstance(ended, AguiOutput):
                    return
                if not ended.must_restart:
                    yield self._last(ended)
                    return
                # An attempt was replaced: text can be taken back only by a snapshot of everything.
                await self._follower.need(_whole(self._run.turn_id))
                output = self._output(AguiStream())
                yield output.write(self._snapshot(output, reset=ended.stream.may_hold_state))
        except TransportError as error:
            yield output.write([(None, _failed(error))])
        finally:
            await self._follower.release()

    async def connected(self) -> AsyncIterator[bytes]:
        """As `body`, after a snapshot."""
        self._has_cursors = False
        output = self._output(AguiStream())
        try:
            yield output.write([(None, self._started()), *self._snapshot(output)])
            if self._run.turn_id is None:
                yield output.write([(None, self._finished(None, suspended=False))])
                return
            async for written in self.body(output.stream, begins=False):
                yield written
        finally:
            await self._follower.release()

    # What is written

    def _output(self, stream: AguiStream) -> AguiOutput:
        output = AguiOutput(
            self._run.turn_id or "",
            stream,
            self._start,
            newest=self._how.newest,
            has_cursors=self._has_cursors,
        )
        output.position = self._follower.tail.position
        return output

    def _node(self) -> Node | None:
        return self._follower.tree.run_node(self._run.turn_id or "")

    def _started(self) -> EventJson:
        return started(self._follower.session, self._run.run_id, self._run.turn_id)

    def _snapshot(self, output: AguiOutput, *, reset: bool = False) -> list[SentEvent]:
        """The messages and the state. `reset`: the state that the reader has may have been taken back."""
        tree, turn_id = self._follower.tree, self._run.turn_id
        output.stream.adopt(chunks_of_run(self._node(), output.span(tree)))
        messages: EventJson = {"type": "MESSAGES_SNAPSHOT", "messages": messages_of(tree, turn_id)}
        *before, last = [messages, *state_of(tree, turn_id, reset=reset)]
        # A reader that is cut in between gets all of it again.
        return [*((None, event) for event in before), (output.stream.cursor, last)]

    def _last(self, output: AguiOutput) -> bytes:
        until = output.span(self._follower.tree).until
        usage = usage_of_run(self._node(), output.span(self._follower.tree))
        last = self._finished(until, suspended=until is not None, usage=usage)
        return output.write([(f"{output.stream.cursor}$", last)])

    def _finished(self, until: str | None, *, suspended: bool, usage: Sequence[EventJson] = ()) -> EventJson:
        run = self._follower.tree.turn(self._run.turn_id or "")
        pending = pending_calls(self._node(), until) if suspended else Pending()
        return finished(
            self._follower.session,
            self._run.run_id,
            run,
            pending,
            suspended=suspended,
            old=self._how.old,
            usage=usage,
        )


def waiting_turn(tree: SessionTree) -> str | None:
    """The newest shown turn, if it waits for people."""
    runs = TreeView(tree).runs()
    return runs[-1].run_id if runs and runs[-1].status.value == "suspended" else None


def _failed(error: TransportError) -> EventJson:
    return {"type": "RUN_ERROR", "message": error.info.message, "code": str(error.info.code)}
