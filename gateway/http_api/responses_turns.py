"""What OpenAI's clients ask for, as turns: a message, answers to calls, a cancel. A request sent again is the same turn."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.auth.authenticator import Credential
from gateway.http_api.models import CancelIn, CancelOut
from gateway.http_api.responses_errors import refused
from gateway.http_api.responses_models import ApprovalAnswer, CreateIn, Said
from gateway.http_api.responses_read import ResponseReader, require_readable
from gateway.http_api.turn_calls import TurnCalls
from gateway.services import Services
from selfhost_transport.errors import InvalidArgument, NotFound
from selfhost_transport.turns import inputs
from selfhost_transport.turns.anchors import Anchor
from selfhost_transport.turns.inputs import InputIds
from selfhost_transport.turns.responses_object import ResponseId, item_id
from selfhost_transport.turns.responses_units import ResponseKind
from selfhost_transport.turns.run_spans import Pending, pending_calls
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import check_name
from selfhost_transport.wire.message import Message

_REPEAT_MS: Final = 60_000
"""How long a request that was sent again finds the first one's turn: its client waits at most some seconds."""
_WAITED_MS: Final = 900_000
"""The same for a request that is answered when the turn has ended: it can be lost at any time until then."""
_MAX_KEY: Final = 256


@dataclass(frozen=True, slots=True)
class SentRequest:
    """How a request was sent: again, by a client that got no answer, or with a key of its own."""

    body: bytes
    key: str | None = None
    is_repeat: bool = False

    @classmethod
    def of(cls, headers: Mapping[str, str], body: bytes) -> SentRequest:
        """Read it off a request. Raises InvalidArgument, also for a body with half of a surrogate pair in it."""
        key = headers.get("idempotency-key") or None
        if key is not None and len(key) > _MAX_KEY:
            raise refused(f"an Idempotency-Key has at most {_MAX_KEY} characters", None)
        try:
            # Stricter than what has parsed it.
            orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise refused(f"the body is not a JSON document in UTF-8: {error}", None) from error
        count = headers.get("x-stainless-retry-count", "")
        return cls(body, key, count.isascii() and count.isdecimal() and int(count[:4]) > 0)


@dataclass(frozen=True, slots=True)
class _Ids:
    """What makes a turn: its session, and the message that it answers."""

    session: str
    message_id: str


class ResponseTurns:
    """What one caller asks for."""

    def __init__(self, services: Services, credential: Credential) -> None:
        self._services = services
        self._credential = credential
        self._client_id = credential.identity.stamp(None)

    async def create(self, body: CreateIn, sent: SentRequest) -> ResponseId:
        """Start or continue a turn. Raises InvalidArgument, CapabilityError, and what a send raises."""
        said = body.said()
        session, previous = body.session, _previous(body.previous_response_id)
        session = previous.session if previous is not None else session
        if session is not None:
            check_name(session)
            self._require_model(body.model, session)
        if said.answers:
            if previous is None:
                raise refused("name the response that made the calls", "previous_response_id")
            return await self._answer(previous, said, sent)
        return await self._send(body, said, session, previous, sent)

    async def cancel(self, response_id: ResponseId) -> dict[str, Any]:
        """End the turn of a response for good; one that is over is left as it is. The response as it stays."""
        self._credential.capability.require(Operation.TURN_CANCEL, response_id.session)
        require_readable(self._credential, response_id.session)
        # Written before anything is read where the turn has no other response: each millisecond costs tokens.
        done = await self._end_turn(response_id) if await self._is_whole_turn(response_id) else None
        async with ResponseReader(self._services, self._credential, response_id) as reader:
            if reader.is_over and not reader.is_suspended:
                return reader.json()
            if done is None:
                done = await self._end_turn(response_id)
            return reader.json() if done.denied or done.undecided else await reader.wait_for_turn()

    async def _end_turn(self, response_id: ResponseId) -> CancelOut:
        calls = TurnCalls(self._services, self._credential, response_id.session)
        return await calls.cancel(CancelIn(turn_id=response_id.turn_id))

    async def _is_whole_turn(self, response_id: ResponseId) -> bool:
        """Whether a turn runs that has never been suspended, so that it is one response."""
        if response_id.number:
            return False
        session, turn_id = response_id.session, response_id.turn_id
        record, suspended = await asyncio.gather(
            self._services.turns.record(session, turn_id),
            self._services.stores.pauses.suspended_ms(session, turn_id),
        )
        return record is not None and record.terminal is None and suspended is None

    # A message

    async def _send(
        self, body: CreateIn, said: Said, session: str | None, previous: ResponseId | None, sent: SentRequest
    ) -> ResponseId:
        is_waited = not (body.stream or body.background)
        ids = await self._ids(said, session, body.model, sent, is_waited=is_waited)
        require_readable(self._credential, ids.session)
        calls = TurnCalls(self._services, self._credential, ids.session)
        below = await self._anchor(previous) if previous is not None else Anchor(None)
        event_id = str(uuid.uuid5(uuid.NAMESPACE_OID, ids.message_id))
        messages = inputs.user_message(
            said.parts, InputIds(ids.message_id, event_id), client_id=self._client_id,
            parent=below.parent, fork_of=below.fork_of,
        )  # fmt: skip
        said.client_input.attach(messages)
        return ResponseId(ids.session, await calls.start(messages, self._client_id))

    async def _anchor(self, previous: ResponseId) -> Anchor:
        """Below the last message of the response that is continued, beside what already follows it.

        While it is being written, the newest message of the session is followed.
        """
        async with self._reader(previous) as reader:
            node, span = reader.node, reader.span
            run = reader.tree.turn(previous.turn_id)
            if run is None or span is None or not (run.status.is_terminal or span.until is not None):
                return Anchor(None)
            messages = node.messages.items() if node is not None else ()
            last = [key for key, message in messages if span.holds(message.serial)]
            parent = last[-1] if last else run.input_codec_message_id
            return Anchor(parent, fork_of=_follower(reader.tree, parent))

    def _reader(self, previous: ResponseId) -> _Previous:
        return _Previous(self._services, self._credential, previous)

    async def _ids(
        self, said: Said, session: str | None, model: str | None, sent: SentRequest, *, is_waited: bool
    ) -> _Ids:
        """A request that is sent again has those that it had before."""
        who = f"{self._credential.key_name}\0{self._client_id or ''}\0"
        if sent.key is not None:
            named = uuid.uuid5(uuid.NAMESPACE_OID, f"{who}{sent.key}\0{session or ''}")
            return _Ids(
                session or new_session(self._services, self._credential, model, named),
                said.message_id or str(named),
            )
        fresh = uuid.uuid4()
        ids = _Ids(
            session or new_session(self._services, self._credential, model, fresh),
            said.message_id or str(fresh),
        )
        digest = hashlib.blake2b(who.encode() + sent.body, digest_size=16).hexdigest()
        note = f"{self._services.settings.redis.prefix}:sent:{digest}"
        if sent.is_repeat:
            found = await self._services.redis.command("GET", note)
            if found is not None:
                message_id, _, name = found.decode().partition("\0")
                return _Ids(name, message_id)
        await self._services.redis.command("SET", note, f"{ids.message_id}\0{ids.session}", "PX", _REPEAT_MS)
        return ids

    def _require_model(self, model: str | None, session: str) -> None:
        rules = self._services.rules_for(session)
        if model is not None and rules is not None and rules.agent != model:
            raise _no_model(model, [rules.agent])

    # Answers

    async def _answer(self, previous: ResponseId, said: Said, sent: SentRequest) -> ResponseId:
        calls = TurnCalls(self._services, self._credential, previous.session)
        async with self._reader(previous) as reader:
            node = reader.node
            following = ResponseId(previous.session, previous.turn_id, previous.number + 1)
            answers = self._answers(reader, previous, said)
            given = {record.headers.event_id for record in node.records()} if node is not None else set()
            if (sent.is_repeat or sent.key is not None) and given & {_event(one) for one in answers}:
                return following
            run = reader.tree.turn(previous.turn_id)
            if run is None or run.status is not TurnStatus.SUSPENDED or following.span(node) is None:
                state = run.status if run is not None else "gone"
                raise refused(f"the turn waits for no answers any more: it is {state}", "input")
            _require_all(pending_calls(node), said, reader.approvals())
        said.client_input.attach(answers)
        for message in answers:
            message.client_id = self._client_id
            await calls.give([message])
        return following

    def _answers(self, reader: _Previous, previous: ResponseId, said: Said) -> list[Message]:
        turn_id, client_id = previous.turn_id, self._client_id
        origin = reader.call_messages()
        found = []
        for call, output in said.outputs.items():
            if call not in origin:
                raise refused(f"the response made no call {call[:64]!r}", "input")
            event = _event_id(previous, call, output)
            found.append(
                inputs.tool_result(origin[call], turn_id, call, output, event_id=event, client_id=client_id)
            )
        asked = reader.approvals()
        for one in said.approvals:
            if one.request_id not in asked:
                raise refused(f"the response asked for no approval {one.request_id[:64]!r}", "input")
            found.append(self._approval(previous, asked[one.request_id], origin, one))
        return found

    def _approval(
        self, previous: ResponseId, call: str, origin: Mapping[str, str], one: ApprovalAnswer
    ) -> Message:
        return inputs.tool_approval_response(
            origin[call], previous.turn_id, call, one.approved, event_id=_event_id(previous, call, one.approved),
            client_id=self._client_id, reason=one.reason,
        )  # fmt: skip


def new_session(services: Services, credential: Credential, model: str | None, name: uuid.UUID) -> str:
    """A session of the agent that is called `model`, where the caller may start a turn. Raises InvalidArgument."""
    named = sorted(services.settings.namespaces, key=lambda rule: rule.id != "*")
    rules = [rule for rule in named if rule.agent is not None]
    fitting = [rule for rule in rules if model is None or rule.agent == model]
    if not fitting:
        raise _no_model(model, sorted({str(rule.agent) for rule in rules}))
    found = [f"conv_{name.hex}" if rule.id == "*" else f"{rule.id}:conv_{name.hex}" for rule in fitting]
    allows = credential.capability.allows
    return next((one for one in found if allows(Operation.TURN_START, one)), found[0])


def _previous(text: str | None) -> ResponseId | None:
    if text is None:
        return None
    try:
        found = ResponseId.parse(text)
        check_name(found.session)
    except InvalidArgument as error:
        raise _no_previous(text) from error
    return found


class _Previous(ResponseReader):
    """A response that a request goes on from."""

    async def __aenter__(self) -> _Previous:
        """Start reading. Raises InvalidArgument where there is no such response."""
        try:
            await super().__aenter__()
        except NotFound as error:
            raise _no_previous(str(self.id)) from error
        return self

    def call_messages(self) -> dict[str, str]:
        """The messages of its calls, by call."""
        return {
            u.key: u.codec_message_id
            for u in self.units().all
            if u.kind in (ResponseKind.CALL, ResponseKind.APPROVAL)
        }

    def approvals(self) -> dict[str, str]:
        """Its calls that have to be allowed, by the ids of the requests."""
        base = self.id.base
        return {
            item_id(unit, base, index): unit.key
            for index, unit in enumerate(self.units().all)
            if unit.kind is ResponseKind.APPROVAL
        }


def _follower(tree: SessionTree, parent: str | None) -> str | None:
    """The first message that was sent below this one."""
    for node in tree.nodes():
        if node.run is None and node.parent == parent and parent is not None:
            return next(iter(node.messages), None)
    return None


def _require_all(pending: Pending, said: Said, asked: Mapping[str, str]) -> None:
    """A turn goes on with the last answer: one request gives all that are wanted."""
    answered = {*said.outputs, *(asked[one.request_id] for one in said.approvals)}
    waiting = {*pending.calls, *pending.approvals}
    if wrong := [call for call in said.outputs if call not in pending.calls]:
        why = "has to be allowed first" if wrong[0] in pending.approvals else "was answered before"
        raise refused(f"the call {wrong[0][:64]!r} {why}", "input")
    if missing := sorted(waiting - answered):
        raise refused(
            f"the turn also waits for the calls {', '.join(missing)}: answer all of them at once", "input"
        )


def _event_id(previous: ResponseId, call: str, said: Any) -> str:
    named = orjson.dumps([str(previous), call, said])
    return str(uuid.uuid5(uuid.NAMESPACE_OID, hashlib.blake2b(named).hexdigest()))


def _event(message: Message) -> str:
    assert message.extras is not None
    return str(message.extras["ai"]["transport"]["event-id"])


def _no_previous(text: str) -> InvalidArgument:
    said = f"Previous response with id {text[:200]!r} not found."
    return refused(said, "previous_response_id", "previous_response_not_found")


def _no_model(model: str | None, known: list[str]) -> InvalidArgument:
    said = f"The model {str(model)[:64]!r} does not exist here; the agents are {', '.join(known) or 'none'}"
    return refused(said, "model", "model_not_found", status=404)
