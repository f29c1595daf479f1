"""A response read from its session: what it is, what it was asked, and its stream for one reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final

import orjson

from gateway.auth.authenticator import Credential
from gateway.http_api.reader import Batch, SessionReader, is_known, turn_of_event
from gateway.http_api.responses_errors import error_event, refused
from gateway.services import Services
from selfhost_transport.errors import InvalidArgument, NotFound, ServiceError, TransportError
from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.agui_runs import Span
from selfhost_transport.turns.events import ChunkReceived
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.record import Record
from selfhost_transport.turns.responses_object import (
    About,
    ItemJson,
    ResponseId,
    asked_of,
    is_over,
    response_json,
    status_of,
)
from selfhost_transport.turns.responses_stream import EventJson, ResponseStream
from selfhost_transport.turns.responses_units import Units
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import check_name
from selfhost_transport.wire.serial import parse_position

_DELTAS: Final = (c.TextDelta, c.ReasoningDelta, c.ToolInputDelta)
_KEEPALIVE: Final = b": keep-alive\n\n"
_BLOCK: Final = 65_536
"""Bytes that are made at once; other tasks wait that long."""
_RESTARTS: Final = "the service restarts; continue with `starting_after`"


def parse_id(text: str) -> ResponseId:
    """The response of a path. Raises NotFound for what is none of ours."""
    try:
        found = ResponseId.parse(text)
        check_name(found.session)
    except InvalidArgument as error:
        raise NotFound(f"there is no response {text[:64]!r}") from error
    return found


def require_readable(credential: Credential, session: str) -> None:
    """Raises CapabilityError for callers who could not be shown a response of the session."""
    credential.capability.require(Operation.SUBSCRIBE, session)
    credential.capability.require(Operation.HISTORY, session)


class ResponseReader:
    """One response of a session that is being read. Use as a context manager."""

    def __init__(self, services: Services, credential: Credential, response_id: ResponseId) -> None:
        self.id = response_id
        self.reader = SessionReader(
            services, credential, response_id.session, lambda tree: _is_known(tree, response_id)
        )
        self._services = services
        self._credential = credential

    async def __aenter__(self) -> ResponseReader:
        """Start reading. Raises CapabilityError, NotFound, StoreUnavailable."""
        require_readable(self._credential, self.id.session)
        await self.reader.__aenter__()
        if self.reader.tree.turn(self.id.turn_id) is None or self.span is None:
            await self.reader.__aexit__()
            raise NotFound(f"there is no response {str(self.id)[:200]!r}, or it was removed")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.reader.__aexit__()

    @property
    def tree(self) -> SessionTree:
        """The session, as far as it was read."""
        return self.reader.tree

    @property
    def node(self) -> Node | None:
        """The turn; None while it is pending."""
        return self.tree.run_node(self.id.turn_id)

    @property
    def span(self) -> Span | None:
        """The response's part of it."""
        return self.id.span(self.node)

    def units(self) -> Units:
        """Its output."""
        return Units(self.node, self.span or Span())

    def status(self, units: Units) -> str:
        """Its status."""
        return status_of(self.tree.turn(self.id.turn_id), self.span or Span(), units)

    def json(self) -> ItemJson:
        """All of it."""
        units = self.units()
        return self.snapshot(units, self.status(units))

    def snapshot(self, units: Units, status: str) -> ItemJson:
        """It, with these units and this status."""
        run = self.tree.turn(self.id.turn_id)
        error = run.error if run is not None else None
        return response_json(self.about(), status, units, error)

    def about(self) -> About:
        """What is not its output."""
        question = self.question()
        rules = self._services.rules_for(self.id.session)
        model = rules.agent if rules is not None else ""
        node, span = question or self.node, self.span
        began = span.start if span is not None and span.start else (node.serial if node is not None else None)
        created = parse_position(began)[0].ms // 1000 if began else 0
        return About(self.id, model, created, self._previous(question), asked_of(self._given()))

    def question(self) -> Node | None:
        """The user's message that the turn answers."""
        run = self.tree.turn(self.id.turn_id)
        trigger = run.input_codec_message_id if run is not None else None
        return self.tree.owner_of(trigger) if trigger is not None else None

    def _given(self) -> list[Record]:
        """The records of the request that began it: a message, or answers."""
        if not self.id.number:
            question = self.question()
            return list(question.records()) if question is not None else []
        span = self.span or Span()
        return [one for one in self.node.records() if span.holds(one.serial)] if self.node is not None else []

    def _previous(self, question: Node | None) -> ResponseId | None:
        if self.id.number:
            return ResponseId(self.id.session, self.id.turn_id, self.id.number - 1)
        parent = question.parent if question is not None else None
        node = self.tree.owner_of(parent) if parent is not None else None
        return response_of(self.id.session, node, parent) if node is not None and parent is not None else None

    async def wait(self) -> ItemJson:
        """All of it, once it is over, or once the gateway stops or the credentials have expired: then as it is."""
        async for _ in self.waiting():
            pass
        return self.json()

    async def waiting(self) -> AsyncIterator[None]:
        """Whenever something happened, or nothing for a while, until it is over."""
        try:
            if is_over(self.status(self.units())):
                return
            async for batch in self.reader.batches():
                mine = batch.replaced or any(
                    turn_of_event(event) == self.id.turn_id and not isinstance(event, ChunkReceived)
                    for event in batch.events
                )
                if mine and is_over(self.status(self.units())):
                    return
                yield
        except TransportError:
            return


def response_of(session: str, node: Node, codec_message_id: str) -> ResponseId | None:
    """The response that a message of a turn is part of."""
    message = node.messages.get(codec_message_id)
    if node.run is None or message is None or message.serial is None:
        return None
    number = sum(1 for serial in node.run.suspensions if serial < message.serial)
    return ResponseId(session, node.run.run_id, number)


def _is_known(tree: SessionTree, response_id: ResponseId) -> bool:
    """Whether the tree holds the turn, its question, and what that follows."""
    turn_id = response_id.turn_id
    run = tree.turn(turn_id) if is_known(tree, turn_id) else None
    if run is None:
        return False
    trigger = run.input_codec_message_id
    question = tree.owner_of(trigger) if trigger is not None else None
    if question is None:
        return trigger is None
    return question.parent is None or tree.has_whole(question.parent)


class ResponseEvents:
    """The server-sent events of a response for one reader.

    `after`: the number of the last event that it has. `each`: it may have any part of the texts without saying which.
    """

    def __init__(self, response: ResponseReader, *, after: int = -1, each: bool = False) -> None:
        self._response = response
        self._stream = ResponseStream(response.id.base, after)
        self._each = each
        self._units = Units(None, Span())
        self._over = False

    async def body(self) -> AsyncIterator[bytes]:
        """Until the response is over. Closing it cancels nothing."""
        try:
            async for block in _blocks(self._first()):
                yield block
            if self._over:
                return
            async for batch in self._response.reader.batches():
                async for block in _blocks(self._take(batch)):
                    yield block
                if self._over:
                    return
                yield b"" if batch.position else _KEEPALIVE
            yield _frame(error_event(ServiceError(_RESTARTS, status_code=503).info, self._stream.number))
        except TransportError as error:
            yield _frame(error_event(error.info, self._stream.number))
        finally:
            await self._response.__aexit__()

    def _first(self) -> Iterator[EventJson]:
        yield from self._stream.begin(self._response.snapshot(self._units, "queued"))
        yield from self._sync(each=self._each)

    def _take(self, batch: Batch) -> Iterator[EventJson]:
        mine = [event for event in batch.events if turn_of_event(event) == self._response.id.turn_id]
        if batch.replaced or self._units.is_behind or any(not _is_delta(event) for event in mine):
            yield from self._sync()
        elif mine:
            yield from self._stream.advance()

    def _sync(self, *, each: bool = False) -> Iterator[EventJson]:
        response = self._response
        if response.tree.turn(response.id.turn_id) is None:
            # Its history is gone.
            raise NotFound("the response was removed")
        self._units = units = response.units()
        status = response.status(units)
        if status != "queued":
            yield from self._stream.start(response.snapshot(Units(None, Span()), "in_progress"))
        if is_over(status):
            self._over = True
            yield from self._stream.finish(units, response.snapshot(units, status), each=each)
        else:
            yield from self._stream.advance(units, each=each)


def read_after(value: int | None, stream: bool | None) -> int:
    """The cursor of a request. Raises InvalidArgument."""
    if value is None:
        return -1
    if not stream:
        raise refused("`starting_after` is for streams: add `stream=true`", "starting_after")
    return value


def _is_delta(event: object) -> bool:
    if isinstance(event, ChunkReceived):
        return isinstance(event.chunk, _DELTAS)
    return False


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


def _frame(event: EventJson) -> bytes:
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"
