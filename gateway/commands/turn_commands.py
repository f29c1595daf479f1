"""Turn signals in the stream: in a namespace bound to an agent, `ai-input` and `ai-cancel` are commands.

A published `ai-input` without a run-id becomes a turn (P4), an `ai-cancel` ends turns (P2), an `ai-input` with a
run-id continues one. Agents' messages come from workers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.commands.commands import CancelTurns, Continue, Submit
from gateway.commands.continuations import read_continuation
from gateway.commands.message_rules import require_not_agents
from selfhost_transport.errors import BadRequest, CapabilityError, InvalidArgument
from selfhost_transport.settings import NamespaceRule
from selfhost_transport.store.turn_request import build_turn_request, trigger_of
from selfhost_transport.store.turn_store import CancelFilter, Policy, Scope
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import turn_id_for
from selfhost_transport.wire.capability import Capability, Operation
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.message import Message

TURN_POLICY: Final = "turn-policy"
CANCEL_OWN: Final = "cancel-own"
CANCEL_ALL: Final = "cancel-all"
CANCEL_CLIENT_ID: Final = "cancel-client-id"
CANCEL_RUN_ID: Final = "cancel-run-id"
_YES: Final = "true"


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What holds for the turns of a bound namespace. `max_active` 0: no limit."""

    agent: str
    policy: Policy
    max_active: int = 0
    queue_cap: int | None = None
    max_attempts: int = 3
    on_crash: str = "restart"

    @classmethod
    def of(cls, rule: NamespaceRule, max_attempts: int) -> TurnRules | None:
        """The rules of a namespace; None where it is not bound to an agent."""
        if rule.agent is None:
            return None
        return cls(
            agent=rule.agent,
            policy=rule.policy,
            max_active=rule.max_active,
            queue_cap=rule.queue_cap,
            max_attempts=rule.max_attempts or max_attempts,
            on_crash=rule.on_crash,
        )


def read_signal(
    session: str, messages: Sequence[Message], rules: TurnRules, capability: Capability
) -> Submit | Continue | CancelTurns | None:
    """The command that a publish of stamped messages is; None for an ordinary publish.

    Raises CapabilityError for agents' messages and missing turn rights, InvalidArgument for an input that no turn
    could answer, BadRequest for a cancel among other messages.
    """
    for message in messages:
        require_not_agents(message)
    if any(message.name == h.AI_CANCEL for message in messages):
        if len(messages) > 1:
            raise BadRequest("an ai-cancel is published alone", code=Code.INVALID_PUBLISH)
        capability.require(Operation.TURN_CANCEL, session)
        return read_cancel(session, messages[0])
    if trigger_of(messages) is None:
        _check_inputs(messages)
        continuation = read_continuation(session, messages)
        if continuation is not None:
            capability.require(Operation.TURN_START, session)
        return continuation
    capability.require(Operation.TURN_START, session)
    return _submit(session, messages, rules, capability)


def read_cancel(session: str, message: Message) -> CancelTurns:
    """What an `ai-cancel` names: run-id, else input, else this service's own headers, `cancel-own` among them."""
    headers = h.read_headers(message)
    if headers is None:
        raise InvalidArgument("an ai-cancel needs extras.ai.transport with the turns it names")
    run_id, input_id = headers.run_id, headers.input_codec_message_id
    if run_id:
        return CancelTurns(session, CancelFilter(Scope.TURN, run_id), message)
    if input_id:
        turn = turn_id_for(session, input_id)
        return CancelTurns(session, CancelFilter(Scope.INPUT, input_id), message, turn)
    scope = _scope(headers, message)
    if scope is None:
        raise InvalidArgument(
            "an ai-cancel names run-id, input-codec-message-id, cancel-own, cancel-connection, cancel-client-id "
            "or cancel-all"
        )
    return CancelTurns(session, scope, message)


def own_turns(client_id: str | None) -> CancelFilter:
    """The filter for a client's own turns. Raises BadRequest 40012 for a caller without an identity."""
    if client_id is None:
        raise BadRequest(
            "an anonymous client has no turns of its own; name a turn, or connect with a clientId",
            code=Code.INVALID_CLIENT_ID,
        )
    return CancelFilter(Scope.OWNER, client_id)


def _submit(session: str, messages: Sequence[Message], rules: TurnRules, capability: Capability) -> Submit:
    trigger = trigger_of(messages)
    headers = h.read_headers(trigger) if trigger is not None else None
    asked = headers.get(TURN_POLICY) if headers is not None else None
    policy, interrupts, own_suspended = rules.policy, CancelFilter(Scope.ALL), False
    if asked is not None and headers is not None and trigger is not None:
        policy = _policy(asked)
        if policy is Policy.INTERRUPT:
            capability.require(Operation.TURN_CANCEL, session)
            interrupts = _named(headers) or _scope(headers, trigger) or own_turns(trigger.client_id)
    if superseded := _superseded(headers):
        # A client tool's result that forks: the turn that waited for it is answered by another (section 8.11).
        policy, interrupts = Policy.INTERRUPT, CancelFilter(Scope.TURN, superseded)
        own_suspended = not capability.allows(Operation.TURN_CANCEL, session)
        if own_suspended and trigger is not None and trigger.client_id is None:
            raise CapabilityError(
                "ending a turn without the right turn-cancel needs a clientId: that of its owner"
            )
    return Submit(
        build_turn_request(
            session,
            messages,
            agent=rules.agent,
            policy=policy,
            interrupts=interrupts,
            interrupts_own_suspended=own_suspended,
            max_active=rules.max_active,
            queue_cap=rules.queue_cap,
            max_attempts=rules.max_attempts,
            on_crash=rules.on_crash,
        ),
        is_adrift=headers is not None
        and headers.parent is None
        and headers.role == h.ROLE_USER
        and headers.get(h.FIRST) is None,
    )


def _superseded(headers: h.Headers | None) -> str | None:
    if headers is None or headers.role == h.ROLE_USER:
        return None
    return headers.get(h.SUPERSEDES)


def _named(headers: h.Headers) -> CancelFilter | None:
    # On an input `run-id` would make it a continuation, so the turn to interrupt has a header of its own.
    turn = headers.get(CANCEL_RUN_ID)
    return CancelFilter(Scope.TURN, turn) if turn else None


def _scope(headers: h.Headers, message: Message) -> CancelFilter | None:
    owner = headers.get(CANCEL_CLIENT_ID)
    if owner:
        return CancelFilter(Scope.OWNER, owner)
    if headers.get(CANCEL_OWN) == _YES:
        return own_turns(message.client_id)
    if headers.get(h.CANCEL_CONNECTION) == _YES and message.connection_id:
        return CancelFilter(Scope.CONNECTION, message.connection_id)
    return CancelFilter(Scope.ALL) if headers.get(CANCEL_ALL) == _YES else None


def _policy(text: str) -> Policy:
    try:
        return Policy(text)
    except ValueError:
        known = ", ".join(Policy)
        raise InvalidArgument(f"turn-policy must be one of {known}, not {text[:32]!r}") from None


def _check_inputs(messages: Sequence[Message]) -> None:
    """An input that nothing would ever answer is refused, not stored (P4)."""
    for message in messages:
        headers = h.read_headers(message)
        if message.name == h.AI_INPUT and (
            headers is None or not (headers.run_id or headers.codec_message_id)
        ):
            raise InvalidArgument("an ai-input needs a codec-message-id header")
