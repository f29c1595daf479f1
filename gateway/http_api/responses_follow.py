"""A response's server-sent events, for one reader or for all that are at the same place."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Hashable, Iterable, Iterator
from typing import Any, Final

import orjson

from gateway.auth.authenticator import Credential
from gateway.http_api.event_stream import EventStream
from gateway.http_api.follower import Follower
from gateway.http_api.responses_errors import error_event
from gateway.http_api.responses_read import ResponseView, is_response_known, require_readable
from gateway.http_api.session_tail import Change, TurnOutput
from gateway.services import Services
from selfhost_transport.errors import NotFound, ServiceError, TransportError
from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.events import ChunkReceived
from selfhost_transport.turns.responses_object import ResponseId
from selfhost_transport.turns.responses_stream import EventJson, ResponseStream
from selfhost_transport.turns.responses_units import ResponseUnits
from selfhost_transport.turns.run_spans import RunSpan
from selfhost_transport.turns.tree import SessionTree

HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_DELTAS: Final = (c.TextDelta, c.ReasoningDelta, c.ToolInputDelta)
_BLOCK: Final = 65_536
"""Bytes that are made at once; other tasks wait that long."""
_RESTARTS: Final = "the service restarts; continue with `starting_after`"


async def stream_response(
    services: Services,
    credential: Credential,
    response_id: ResponseId,
    *,
    after: int = -1,
    each: bool = False,
) -> EventStream:
    """The events of a response; closing it cancels nothing. Raises NotFound, CapabilityError, StoreUnavailable.

    `after`: the number of the last event that the reader has. `each`: it may have any part of the texts without saying
    which.
    """
    session = response_id.session
    require_readable(credential, session)
    follower = Follower(services, credential, session, lambda tree: is_response_known(tree, response_id))
    await follower.start()
    view = ResponseView(services, response_id, follower.tree)
    if follower.tree.turn(response_id.turn_id) is None or view.span is None:
        await follower.release()
        raise NotFound(f"there is no response {str(response_id)[:200]!r}, or it was removed")
    output = ResponseOutput(services, response_id, after, each=each)
    return EventStream(_body(follower, output), follower.release, HEADERS)


async def _body(follower: Follower, output: ResponseOutput) -> AsyncIterator[bytes]:
    try:
        if not follower.tail.is_quiet:
            async for block in _blocks(output.replay(follower.tree)):
                yield block
        async for written in follower.stream(output):
            yield written
        if follower.ended_with is None:
            yield _frame(error_event(ServiceError(_RESTARTS, status_code=503).info, output.number))
    except TransportError as error:
        yield _frame(error_event(error.info, output.number))
    finally:
        await follower.release()


class ResponseOutput(TurnOutput):
    """How far a response has been sent."""

    def __init__(self, services: Services, response_id: ResponseId, after: int, *, each: bool) -> None:
        self.turn_id = response_id.turn_id
        self._services = services
        self._id = response_id
        self._stream = ResponseStream(response_id.base, after)
        self._units = ResponseUnits(None, RunSpan())
        # Until what is there already has been sent.
        self._each = each

    def __deepcopy__(self, memo: dict[int, Any]) -> ResponseOutput:
        """One that goes on by itself; its items are looked up anew by `sync`."""
        twin = copy.copy(self)
        twin._stream = copy.copy(self._stream)
        return twin

    @property
    def number(self) -> int:
        """The number of the last event."""
        return self._stream.number

    @property
    def key(self) -> Hashable:
        """The response."""
        return "responses", self.turn_id, self._id.number

    @property
    def state(self) -> Hashable | None:
        """How far it has been sent."""
        return self._stream.state

    def replay(self, tree: SessionTree) -> Iterator[EventJson]:
        """What there is, in chunks that can be made one after the other."""
        yield from self._sync(tree)

    def sync(self, tree: SessionTree, position: str) -> bytes:
        """What is missing, texts as one delta."""
        return _bytes(self._sync(tree))

    def feed(self, tree: SessionTree, change: Change) -> bytes:
        """Each delta as it comes."""
        mine = change.of_turn(self.turn_id)
        if change.replaced or self._units.is_behind or any(not _is_delta(event) for event in mine):
            return _bytes(self._sync(tree))
        return _bytes(self._stream.advance())

    def is_over(self, tree: SessionTree) -> bool:
        """Whether the response changes no more."""
        return self._view(tree).is_over

    def close(self, tree: SessionTree) -> bytes:
        """The rest, and the whole response."""
        view = self._view(tree)
        units = view.units()
        return _bytes(self._stream.finish(units, view.snapshot(units, view.status(units))))

    def _view(self, tree: SessionTree) -> ResponseView:
        return ResponseView(self._services, self._id, tree)

    def _sync(self, tree: SessionTree) -> Iterator[EventJson]:
        view = self._view(tree)
        if tree.turn(self.turn_id) is None:
            # Its history is gone.
            return
        nothing = ResponseUnits(None, RunSpan())
        if self._stream.number < 0:
            yield from self._stream.begin(view.snapshot(nothing, "queued"))
        self._units = units = view.units()
        if view.status(units) != "queued":
            yield from self._stream.start(view.snapshot(nothing, "in_progress"))
        each, self._each = self._each, False
        yield from self._stream.advance(units, each=each)


def _is_delta(event: object) -> bool:
    return isinstance(event, ChunkReceived) and isinstance(event.chunk, _DELTAS)


async def _blocks(events: Iterable[EventJson]) -> AsyncIterator[bytes]:
    block = bytearray()
    for event in events:
        block += _frame(event)
        if len(block) >= _BLOCK:
            yield bytes(block)
            block.clear()
            await asyncio.sleep(0)
    if block:
        yield bytes(block)


def _bytes(events: Iterable[EventJson]) -> bytes:
    return b"".join(map(_frame, events))


def _frame(event: EventJson) -> bytes:
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"
