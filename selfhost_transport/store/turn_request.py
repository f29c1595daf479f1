"""From the messages of a send to the request that starts its turn, and what a worker reads of it."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Sequence
from typing import Any, Final

from selfhost_transport.errors import ErrorInfo, InvalidArgument
from selfhost_transport.store.closing_templates import packed_closing
from selfhost_transport.store.entries import pack_value, unpack
from selfhost_transport.store.turn_inputs import Continuation
from selfhost_transport.store.turn_records import PackedClosing
from selfhost_transport.store.turn_store import CancelFilter, ClosingMessages, Policy, Scope, TurnRequest
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import lifecycle
from selfhost_transport.turns.context import STEP_START_PLACEHOLDER, TurnContext, context_for_input
from selfhost_transport.turns.encoder import Create, Encoder
from selfhost_transport.turns.lifecycle import RunReason, StepReason
from selfhost_transport.wire.message import Message

_LOST: Final = ErrorInfo(
    code=104008,
    status_code=500,
    message="the turn could not be finished: all its workers were lost; send the message again",
)
_CONTEXT_FIELDS: Final = tuple(field.name for field in dataclasses.fields(TurnContext))
_CANCEL_HEADERS: Final = {
    Scope.TURN: h.RUN_ID,
    Scope.INPUT: h.INPUT_CODEC_MESSAGE_ID,
    Scope.OWNER: "cancel-client-id",
    Scope.CONNECTION: h.CANCEL_CONNECTION,
    Scope.ALL: "cancel-all",
}


def build_turn_request(
    session: str,
    messages: Sequence[Message],
    *,
    agent: str,
    agent_client_id: str | None = None,
    policy: Policy = Policy.CONCURRENT,
    interrupts: CancelFilter | None = None,
    interrupts_own_suspended: bool = False,
    max_active: int = 0,
    queue_cap: int | None = None,
    max_attempts: int = 3,
    on_crash: str = "restart",
) -> TurnRequest:
    """The request for `messages`, which already carry the sender's verified `client_id` and `connection_id`.

    `agent_client_id` defaults to the agent's name; `interrupts` counts with policy `interrupt` only and
    defaults to every turn. Raises InvalidArgument when no message can start a turn.
    """
    trigger = trigger_of(messages)
    if trigger is None:
        raise InvalidArgument("a turn is started by an ai-input with a codec-message-id and without a run-id")
    context = context_for_input(trigger, session=session, agent_client_id=agent_client_id or agent)
    interrupts = interrupts or CancelFilter(Scope.ALL)
    headers = h.read_headers(trigger)
    event_id = headers.event_id if headers is not None else None
    return TurnRequest(
        session=session,
        turn_id=context.turn_id,
        agent=agent,
        messages=messages,
        owner=trigger.client_id or "",
        input_id=context.input_codec_message_id or "",
        event_id=event_id or "",
        fingerprint=fingerprint(messages),
        closing=_packed_closing(context),
        context=pack_context(context),
        policy=policy,
        interrupts=interrupts,
        interrupts_own_suspended=interrupts_own_suspended,
        cancel_message=_interruption(interrupts, trigger) if policy is Policy.INTERRUPT else None,
        max_active=max_active,
        queue_cap=queue_cap,
        max_attempts=max_attempts,
        on_crash=on_crash,
    )


def with_parent(request: TurnRequest, parent: str) -> TurnRequest:
    """A request whose messages hang below `parent`. Its fingerprint stays: it identifies repeats of the send."""
    messages = [_below(message, parent) for message in request.messages]
    trigger = trigger_of(messages)
    if trigger is None:
        return request
    agent_client_id = unpack_context(request.context).agent_client_id
    context = context_for_input(trigger, session=request.session, agent_client_id=agent_client_id)
    return dataclasses.replace(
        request, messages=messages, closing=_packed_closing(context), context=pack_context(context)
    )


def _below(message: Message, parent: str) -> Message:
    headers = h.read_headers(message)
    if (
        message.name != h.AI_INPUT
        or headers is None
        or headers.codec_message_id is None
        or message.extras is None
    ):
        return message
    if headers.run_id is not None or headers.parent is not None:
        return message
    ai = message.extras["ai"]
    extras = {**message.extras, "ai": {**ai, "transport": {**ai["transport"], h.PARENT: parent}}}
    return dataclasses.replace(message, extras=extras)


def trigger_of(messages: Sequence[Message]) -> Message | None:
    """The message that starts a turn: the last `ai-input` with a codec-message-id and without a run-id."""
    for message in reversed(messages):
        headers = h.read_headers(message)
        if message.name != h.AI_INPUT or headers is None:
            continue
        if headers.run_id is None and headers.codec_message_id is not None:
            return message
    return None


def continuation_for(answer: Message, previous: TurnContext) -> Continuation:
    """The invocation that follows `previous` when `answer`, an `ai-input` with the turn's run-id, resumes it.

    The one who answered becomes the invocation's `input_client_id`; the turn's owner stays (TRN-16).
    """
    context = context_for_input(
        answer,
        session=previous.session,
        agent_client_id=previous.agent_client_id,
        invocation=previous.invocation + 1,
        previous=previous,
    )
    return Continuation(closing_messages_for(context), pack_context(context))


def closing_messages_for(context: TurnContext) -> ClosingMessages:
    """The life-cycle messages that scripts write for the turn, complete but for the step-start's serial."""
    return _closing_messages(context, _lost_id(context))


def _packed_closing(context: TurnContext) -> ClosingMessages | PackedClosing:
    return packed_closing(context, _lost_id(context), _closing_messages)


def _closing_messages(context: TurnContext, lost_id: str) -> ClosingMessages:
    opening = lifecycle.run_resume if context.invocation else lifecycle.run_start
    return ClosingMessages(
        run_start=opening(context),
        step_start=lifecycle.step_start(context),
        step_cancelled=lifecycle.step_end(context, STEP_START_PLACEHOLDER, StepReason.CANCELLED),
        step_failed=lifecycle.step_end(context, STEP_START_PLACEHOLDER, StepReason.FAILED),
        run_cancelled=lifecycle.run_end(context, RunReason.CANCELLED),
        run_lost=lifecycle.run_end(context, RunReason.ERROR, _LOST),
        run_merged=lifecycle.run_end(context, RunReason.COMPLETE),
        output_lost=_output_lost(context, lost_id),
    )


def _lost_id(context: TurnContext) -> str:
    """Of the message in which readers hear that the output is lost."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{context.invocation_id} lost"))


def _output_lost(context: TurnContext, message_id: str) -> Message | None:
    """An `error` chunk: `useChat` takes a stream that ends without one for a success (protocol section 10.1 e)."""
    encoder = Encoder(context, message_id, STEP_START_PLACEHOLDER)
    for operation in encoder.encode(p.Error(_LOST.message)):
        if isinstance(operation, Create):
            return operation.message
    return None


def pack_context(context: TurnContext) -> bytes:
    """A context as the store keeps it."""
    fields = ((name, getattr(context, name)) for name in _CONTEXT_FIELDS)
    return pack_value({name: value for name, value in fields if value is not None})


def unpack_context(raw: bytes) -> TurnContext:
    """The reverse of `pack_context`; fields of a newer version are ignored."""
    return TurnContext(**{name: value for name, value in unpack(raw).items() if name in _CONTEXT_FIELDS})


def fingerprint(messages: Sequence[Message]) -> str:
    """Distinguishes a repeat of a send from another send under the same id: content and sender (P5)."""
    content = [
        [message.name, message.data, message.encoding, _untraced(message.extras), message.client_id]
        for message in messages
    ]
    return hashlib.blake2b(pack_value(content), digest_size=16).hexdigest()


def _untraced(extras: dict[str, Any] | None) -> dict[str, Any] | None:
    """Extras without the trace, which is another one each time a send is repeated."""
    ai = extras.get("ai") if extras is not None else None
    transport = ai.get("transport") if isinstance(ai, dict) else None
    if extras is None or not isinstance(ai, dict) or not isinstance(transport, dict):
        return extras
    if h.TRACEPARENT not in transport:
        return extras
    kept = {name: value for name, value in transport.items() if name != h.TRACEPARENT}
    return {**extras, "ai": {**ai, "transport": kept}}


def with_trace(request: TurnRequest, traceparent: str) -> TurnRequest:
    """A request whose turn belongs to a trace: in the message that starts it, and in what its worker reads."""
    trigger = trigger_of(request.messages)
    messages = [
        h.with_transport_header(one, h.TRACEPARENT, traceparent) if one is trigger else one
        for one in request.messages
    ]
    context = dataclasses.replace(unpack_context(request.context), traceparent=traceparent)
    return dataclasses.replace(request, messages=messages, context=pack_context(context))


def traceparent_in(messages: Sequence[Message]) -> str | None:
    """The trace that the sender of an input named."""
    trigger = trigger_of(messages)
    headers = h.read_headers(trigger) if trigger is not None else None
    return headers.get(h.TRACEPARENT) if headers is not None else None


def _interruption(interrupts: CancelFilter, trigger: Message) -> Message:
    """The cancel entry that precedes the closing of interrupted turns, by the sender."""
    value = "true" if interrupts.scope in (Scope.ALL, Scope.CONNECTION) else interrupts.value
    return Message(
        name=h.AI_CANCEL,
        client_id=trigger.client_id,
        connection_id=trigger.connection_id,
        extras=h.make_extras({_CANCEL_HEADERS[interrupts.scope]: value}),
    )
