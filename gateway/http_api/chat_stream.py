"""One turn as the response of a request: the UI message stream of `useChat`, for one reader, from wherever it begins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final

import orjson

from gateway.auth.authenticator import Credential
from gateway.http_api.chat_turns import Asked
from gateway.http_api.event_stream import EventStream
from gateway.http_api.reader import Batch, SessionReader, is_known, turn_of_event
from gateway.services import Services
from selfhost_transport.errors import NotFound, TransportError
from selfhost_transport.turns.events import ChunkReceived, OutputReplaced, TurnChanged
from selfhost_transport.turns.machine import TurnStatus
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.ui_stream import ChunkJson, UIMessageStream, chunks_of_turn

HEADERS: Final = {
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
    "x-vercel-ai-ui-message-stream": "v1",
}
_KEEPALIVE: Final = b": keep-alive\n\n"
_DONE: Final = b"data: [DONE]\n\n"
_RESTARTS: Final = "the service restarts; reload the page to follow the answer"


async def stream_turn(services: Services, credential: Credential, session: str, asked: Asked) -> EventStream:
    """The stream of a turn; closing it cancels nothing. Raises NotFound, CapabilityError, StoreUnavailable."""
    reader = SessionReader(services, credential, session, lambda tree: is_known(tree, asked.turn_id))
    await reader.__aenter__()
    if reader.tree.turn(asked.turn_id) is None:
        await reader.__aexit__()
        raise NotFound(f"this chat has no turn {asked.turn_id}")
    return EventStream(_TurnResponse(reader, asked).body(), reader.__aexit__, HEADERS)


class _TurnResponse:
    """What is written to one reader."""

    def __init__(self, reader: SessionReader, asked: Asked) -> None:
        self._reader = reader
        self._turn_id = asked.turn_id
        self._stream = UIMessageStream(asked.turn_id, skip=asked.skip)
        # The turn was suspended and has been answered: that it still says so means nothing yet.
        self._resumes = asked.resumes

    async def body(self) -> AsyncIterator[bytes]:
        """Server-sent events until the turn ends or is suspended."""
        reader = self._reader
        try:
            yield _events(None, self._replay())
            if (last := self._ending()) is not None:
                yield last
                return
            async for batch in reader.batches():
                yield _events(batch.position, self._take(batch)) or (b"" if batch.position else _KEEPALIVE)
                if (last := self._ending()) is not None:
                    yield last
                    return
            yield _events(None, [{"type": "error", "errorText": _RESTARTS}])
        except TransportError as error:
            yield _events(None, [{"type": "error", "errorText": error.info.message}])
        finally:
            await reader.__aexit__()

    def _replay(self) -> list[ChunkJson]:
        return self._stream.replay(chunks_of_turn(self._reader.tree.run_node(self._turn_id)))

    def _take(self, batch: Batch) -> list[ChunkJson]:
        mine = [event for event in batch.events if turn_of_event(event) == self._turn_id]
        if any(
            isinstance(event, TurnChanged) and event.turn.status is not TurnStatus.SUSPENDED for event in mine
        ):
            self._resumes = False
        if (
            batch.replaced
            or self._stream.is_behind
            or any(isinstance(event, OutputReplaced) for event in mine)
        ):
            return self._replay() if mine or batch.replaced else []
        out: list[ChunkJson] = []
        for event in mine:
            if isinstance(event, ChunkReceived):
                out += self._stream.feed(event.codec_message_id, event.chunk)
        return out

    def _ending(self) -> bytes | None:
        run = self._reader.tree.turn(self._turn_id)
        if run is None or not _is_over(run, self._resumes):
            return None
        error = run.error.message if run.error is not None else None
        return _events(None, self._stream.end(run.status, error)) + _DONE


def _is_over(run: RunInfo, resumes: bool) -> bool:
    return run.status.is_terminal or (run.status is TurnStatus.SUSPENDED and not resumes)


def _events(position: str | None, chunks: Iterable[ChunkJson]) -> bytes:
    name = f"id: {position}\n".encode() if position is not None else b""
    return b"".join(name + b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks)
