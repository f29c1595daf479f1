"""One turn as the response of a request: the UI message stream of `useChat`, from wherever a reader begins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterable, Mapping
from typing import Final

import orjson

from gateway.auth.authenticator import Credential
from gateway.http_api.chat_turns import TurnToStream
from gateway.http_api.event_stream import EventStream
from gateway.http_api.follower import Follower
from gateway.http_api.reader import is_known
from gateway.http_api.session_tail import Change, TurnOutput
from gateway.services import Services
from selfhost_transport.errors import NotFound, TransportError
from selfhost_transport.turns.events import ChunkReceived, OutputReplaced, TurnChanged
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui_counted import CountedStream
from selfhost_transport.turns.ui_stream import ChunkJson, UIMessageStream, chunks_of_turn

HEADERS: Final = {
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
    "x-vercel-ai-ui-message-stream": "v1",
}
_DONE: Final = b"data: [DONE]\n\n"
_RESTARTS: Final = "the service restarts; reload the page to follow the answer"


async def stream_turn(
    services: Services,
    credential: Credential,
    session: str,
    asked: TurnToStream,
    headers: Mapping[str, str] = HEADERS,
) -> EventStream:
    """The stream of a turn; closing it cancels nothing. Raises NotFound, CapabilityError, StoreUnavailable."""
    follower = Follower(services, credential, session, lambda tree: is_known(tree, asked.turn_id))
    await follower.start()
    if follower.tree.turn(asked.turn_id) is None:
        await follower.release()
        raise NotFound(f"this chat has no turn {asked.turn_id}")
    return EventStream(_body(follower, UiOutput(asked)), follower.release, headers)


async def stream_counted(
    services: Services, credential: Credential, session: str, asked: TurnToStream, start: int = 0
) -> EventStream:
    """The stream of a turn from its chunk `start` on; below 0 so many before its present end. Raises as `stream_turn`."""
    follower = Follower(services, credential, session, lambda tree: is_known(tree, asked.turn_id))
    await follower.start()
    if follower.tree.turn(asked.turn_id) is None:
        await follower.release()
        raise NotFound(f"this chat has no turn {asked.turn_id}")
    probe = CountedOutput(asked, 0)
    probe.sync(follower.tree, "")
    headers = {"x-workflow-run-id": asked.turn_id, "x-workflow-stream-tail-index": str(probe.count - 1)}
    output = CountedOutput(asked, start if start >= 0 else max(0, probe.count + start))
    return EventStream(_body(follower, output), follower.release, {**HEADERS, **headers})


async def _body(follower: Follower, output: TurnOutput) -> AsyncIterator[bytes]:
    """Server-sent events until the turn ends or is suspended."""
    try:
        async for written in follower.stream(output):
            yield written
        if follower.ended_with is None:
            yield events_of(None, [{"type": "error", "errorText": _RESTARTS}])
    except TransportError as error:
        yield events_of(None, [{"type": "error", "errorText": error.info.message}])
    finally:
        await follower.release()


class UiOutput(TurnOutput):
    """A turn as a UI message stream."""

    def __init__(self, asked: TurnToStream) -> None:
        self.turn_id = asked.turn_id
        self._skip = asked.skip
        self._stream = UIMessageStream(asked.turn_id, skip=asked.skip)
        # The turn was suspended and has been answered: that it still says so means nothing yet.
        self._resumes = asked.resumes

    @property
    def key(self) -> Hashable:
        """The turn, and how much of it the page had before."""
        return "ui", self.turn_id, self._skip

    @property
    def state(self) -> Hashable | None:
        """None while what was sent is ahead of an attempt that begins again."""
        return None if self._stream.is_behind else (self._resumes, self._stream.state)

    def sync(self, tree: SessionTree, position: str) -> bytes:
        """Texts leave as one chunk."""
        return events_of(None, self._stream.replay(chunks_of_turn(tree.run_node(self.turn_id))))

    def feed(self, tree: SessionTree, change: Change) -> bytes:
        """Each chunk as it comes."""
        mine = change.of_turn(self.turn_id)
        if any(
            isinstance(event, TurnChanged) and event.turn.status is not TurnStatus.SUSPENDED for event in mine
        ):
            self._resumes = False
        out: list[ChunkJson] = []
        is_replaced = change.replaced or any(isinstance(event, OutputReplaced) for event in mine)
        if is_replaced or self._stream.is_behind:
            out += self._stream.replay(chunks_of_turn(tree.run_node(self.turn_id)))
            mine = [event for event in mine if change.replaced]
        for event in mine:
            if isinstance(event, ChunkReceived):
                out += self._stream.feed(event.codec_message_id, event.chunk)
        return events_of(change.position, out)

    def is_over(self, tree: SessionTree) -> bool:
        """Ended, or waiting for people."""
        run = tree.turn(self.turn_id)
        if run is None:
            return False
        return run.status.is_terminal or (run.status is TurnStatus.SUSPENDED and not self._resumes)

    def close(self, tree: SessionTree) -> bytes:
        """How it ended."""
        run = tree.turn(self.turn_id)
        assert run is not None
        error = run.error.message if run.error is not None else None
        return events_of(None, self._stream.end(run.status, error)) + _DONE


class CountedOutput(UiOutput):
    """A turn as a stream whose chunks have numbers; `start`: the first that is sent."""

    def __init__(self, asked: TurnToStream, start: int) -> None:
        super().__init__(asked)
        self._from = start
        self._counted = CountedStream(self._stream, start)

    @property
    def key(self) -> Hashable:
        """The turn, how much of it the page had before, and the number of the first chunk."""
        return "counted", self.turn_id, self._skip, self._from

    @property
    def state(self) -> Hashable | None:
        """With how many were sent."""
        state = super().state
        return None if state is None else (state, self._counted.count)

    @property
    def count(self) -> int:
        """How many chunks there are by now."""
        return self._counted.count

    def sync(self, tree: SessionTree, position: str) -> bytes:
        """In words."""
        super().sync(tree, position)
        return events_of(None, self._counted.advance())

    def feed(self, tree: SessionTree, change: Change) -> bytes:
        """Word by word."""
        super().feed(tree, change)
        return events_of(change.position, self._counted.advance())

    def is_over(self, tree: SessionTree) -> bool:
        """Also once an attempt was replaced: what was counted is not what there is."""
        return self._counted.is_replaced or super().is_over(tree)

    def close(self, tree: SessionTree) -> bytes:
        """`finish` comes last, whatever happened: without it the client asks again forever."""
        if self._counted.is_replaced:
            return events_of(None, self._counted.replaced())
        run = tree.turn(self.turn_id)
        assert run is not None
        error = run.error.message if run.error is not None else None
        return events_of(None, self._counted.end(self._stream.end(run.status, error))) + _DONE


def events_of(position: str | None, chunks: Iterable[ChunkJson]) -> bytes:
    """Server-sent events."""
    name = f"id: {position}\n".encode() if position is not None else b""
    return b"".join(name + b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks)
