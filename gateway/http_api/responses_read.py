"""A response read from its session: what it is, and what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from gateway.auth.authenticator import Credential
from gateway.http_api.reader import SessionReader, is_known, require_turn, turn_of_event
from gateway.http_api.responses_errors import refused
from gateway.services import Services
from selfhost_transport.errors import ContinuityLost, ErrorInfo, InvalidArgument, NotFound, TransportError
from selfhost_transport.turns.events import ChunkReceived
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.record import Record
from selfhost_transport.turns.responses_object import (
    About,
    ItemJson,
    ResponseId,
    asked_of,
    response_json,
    status_of,
)
from selfhost_transport.turns.responses_units import ResponseUnits
from selfhost_transport.turns.run_spans import RunSpan
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import check_name
from selfhost_transport.wire.serial import parse_position


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


class ResponseView:
    """One response in a tree."""

    def __init__(self, services: Services, response_id: ResponseId, tree: SessionTree | None = None) -> None:
        self.id = response_id
        self._services = services
        self._tree = tree
        # Why it will never be over: the service has lost it.
        self.lost: ErrorInfo | None = None

    @property
    def tree(self) -> SessionTree:
        """The session, as far as it was read."""
        assert self._tree is not None
        return self._tree

    @property
    def node(self) -> Node | None:
        """The turn; None while it is pending."""
        return self.tree.run_node(self.id.turn_id)

    @property
    def span(self) -> RunSpan | None:
        """The response's part of it."""
        return self.id.span(self.node)

    def units(self) -> ResponseUnits:
        """Its output."""
        return ResponseUnits(self.node, self.span or RunSpan())

    def status(self, units: ResponseUnits) -> str:
        """Its status."""
        if self.lost is not None:
            return "failed"
        return status_of(self.tree.turn(self.id.turn_id), self.span or RunSpan(), units)

    @property
    def is_over(self) -> bool:
        """Whether it changes no more."""
        span = self.span
        return self.has_turn_ended or (span is not None and span.until is not None)

    @property
    def has_turn_ended(self) -> bool:
        """Whether nothing of the turn comes any more."""
        run = self.node.run if self.node is not None else None
        return run is not None and run.status.is_terminal

    @property
    def is_suspended(self) -> bool:
        """Whether the turn waits for answers to this response's calls."""
        run, span = self.node.run if self.node is not None else None, self.span
        at = run.suspensions if run is not None and run.status is TurnStatus.SUSPENDED else ()
        return bool(at) and span is not None and span.until == at[-1]

    def json(self) -> ItemJson:
        """All of it."""
        units = self.units()
        return self.snapshot(units, self.status(units))

    def snapshot(self, units: ResponseUnits, status: str) -> ItemJson:
        """It, with these units and this status."""
        run = self.tree.turn(self.id.turn_id)
        error = run.error if run is not None else self.lost
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
        span = self.span or RunSpan()
        return [one for one in self.node.records() if span.holds(one.serial)] if self.node is not None else []

    def _previous(self, question: Node | None) -> ResponseId | None:
        if self.id.number:
            return ResponseId(self.id.session, self.id.turn_id, self.id.number - 1)
        parent = question.parent if question is not None else None
        node = self.tree.owner_of(parent) if parent is not None else None
        return response_of(self.id.session, node, parent) if node is not None and parent is not None else None


class ResponseReader(ResponseView):
    """One response of a session that is being read. Use as a context manager. `waits`: as for a SessionReader."""

    def __init__(
        self, services: Services, credential: Credential, response_id: ResponseId, *, waits: bool = False
    ) -> None:
        super().__init__(services, response_id)
        self.reader = SessionReader(
            services,
            credential,
            response_id.session,
            lambda tree: is_response_known(tree, response_id),
            waits=waits,
        )
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

    async def wait(self) -> ItemJson:
        """All of it, once it is over or lost, or once the gateway stops or the credentials have expired: then as it is."""
        async for _ in self.waiting(lambda: self.is_over):
            pass
        return self.json()

    async def wait_for_turn(self) -> ItemJson:
        """The same, once its turn has ended."""
        async for _ in self.waiting(lambda: self.has_turn_ended):
            pass
        return self.json()

    async def waiting(self, is_over: Callable[[], bool]) -> AsyncIterator[None]:
        """Whenever something happened, or nothing for a while, until it is over or lost."""
        try:
            if is_over():
                return
            async for batch in self.reader.batches():
                require_turn(self.tree, self.id.turn_id)
                mine = batch.replaced or any(
                    turn_of_event(event) == self.id.turn_id and not isinstance(event, ChunkReceived)
                    for event in batch.events
                )
                if mine and is_over():
                    return
                yield
        except ContinuityLost as error:
            self.lost = error.info
        except TransportError:
            return


def response_of(session: str, node: Node, codec_message_id: str) -> ResponseId | None:
    """The response that a message of a turn is part of."""
    message = node.messages.get(codec_message_id)
    if node.run is None or message is None or message.serial is None:
        return None
    number = sum(1 for serial in node.run.suspensions if serial < message.serial)
    return ResponseId(session, node.run.run_id, number)


def is_response_known(tree: SessionTree, response_id: ResponseId) -> bool:
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


def read_after(value: int | None, stream: bool | None) -> int:
    """The cursor of a request. Raises InvalidArgument."""
    if value is None:
        return -1
    if not stream:
        raise refused("`starting_after` is for streams: add `stream=true`", "starting_after")
    return value
