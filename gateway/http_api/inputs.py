"""The plain HTTP API for turns that exist: steer, answer, promote, withdraw, and who waits."""

from __future__ import annotations

import uuid

from fastapi import APIRouter

from gateway.auth.authenticator import Credential
from gateway.http_api.conversation import find_call
from gateway.http_api.dependencies import Caller, Running, Session, TypedErrorRoute
from gateway.http_api.models import (
    AnswerIn,
    CancelIn,
    CancelOut,
    InputOut,
    PromoteOut,
    QueueOut,
    SteerIn,
    TextPartIn,
    WaitingOut,
)
from gateway.http_api.turn_calls import TurnCalls
from gateway.services import Services
from selfhost_transport.errors import CapabilityError, InvalidArgument, NotFound, ServiceError, TurnEnded
from selfhost_transport.turns import inputs
from selfhost_transport.turns.ui import FilePart, TextPart
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import format_position

router = APIRouter(route_class=TypedErrorRoute)


@router.post("/v1/sessions/{session}/turns/{turn_id}/inputs", status_code=202, tags=["turns"])
async def steer(
    session: Session, turn_id: str, body: SteerIn, credential: Caller, services: Running
) -> InputOut:
    """Send a message into a turn that is running or suspended, for its next call of the model."""
    client_id = credential.identity.stamp(body.client_id)
    message_id = body.id or str(uuid.uuid4())
    ids = inputs.InputIds(message_id, str(uuid.uuid5(uuid.NAMESPACE_OID, message_id)))
    parts = [TextPart(body.text or "")] if body.parts is None else [_part(part) for part in body.parts]
    messages = inputs.user_message(parts, ids, client_id=client_id, run_id=turn_id)
    return await _give(services, credential, session, messages, client_id)


@router.post("/v1/sessions/{session}/turns/{turn_id}/answers", status_code=202, tags=["turns"])
async def answer(
    session: Session, turn_id: str, body: AnswerIn, credential: Caller, services: Running
) -> InputOut:
    """Answer a call that the turn waits for: a client tool's result or error, or an approval. The first one counts."""
    client_id = credential.identity.stamp(body.client_id)
    message_id = body.message_id or await find_call(services.sessions, session, turn_id, body.call_id)
    if message_id is None:
        raise NotFound(f"turn {turn_id} has made no call {body.call_id!r}")
    event_id = body.id or str(uuid.uuid4())
    if body.approved is not None:
        message = inputs.tool_approval_response(
            message_id, turn_id, body.call_id, body.approved, event_id=event_id, client_id=client_id, reason=body.reason
        )  # fmt: skip
    elif body.error is not None:
        message = inputs.tool_result_error(
            message_id, turn_id, body.call_id, body.error, event_id=event_id, client_id=client_id
        )
    else:
        message = inputs.tool_result(
            message_id, turn_id, body.call_id, body.output, event_id=event_id, client_id=client_id
        )
    return await _give(services, credential, session, [message], client_id)


@router.get("/v1/sessions/{session}/queue", tags=["turns"])
async def queue(session: Session, credential: Caller, services: Running) -> QueueOut:
    """Who works here, and which turns wait, in the order in which they will start."""
    credential.capability.require(Operation.SUBSCRIBE, session)
    waiting = await services.inputs.waiting(session)
    records = {record.turn_id: record for record in await services.turns.active(session)}
    rules = services.rules_for(session)
    return QueueOut(
        agents=await services.fleet.size(rules.agent) if rules is not None else 0,
        queued=len(waiting),
        turns=[
            WaitingOut(turn_id=turn, position=number, owner=records[turn].owner or None)
            for number, turn in enumerate(waiting, 1)
            if turn in records
        ],
    )


@router.post("/v1/sessions/{session}/queue/{turn_id}/promote", tags=["turns"])
async def promote(session: Session, turn_id: str, credential: Caller, services: Running) -> PromoteOut:
    """Start a waiting turn now, beside what runs and before those that waited longer; within `max_active`.

    Another's turn needs the right to cancel turns: those who wait longer wait even longer.
    """
    credential.capability.require(Operation.TURN_START, session)
    rules = services.rules_for(session)
    promoted = await services.inputs.promote(
        session,
        turn_id,
        owner=_owner_only(credential, session),
        max_active=rules.max_active if rules is not None else 0,
    )
    return PromoteOut(promoted=promoted)


@router.delete("/v1/sessions/{session}/queue/{turn_id}", tags=["turns"])
async def withdraw(session: Session, turn_id: str, credential: Caller, services: Running) -> CancelOut:
    """Take a waiting turn out of the queue: it ends `cancelled` and never starts. Refused once it has started."""
    credential.capability.require(Operation.TURN_CANCEL, session)
    if turn_id not in await services.inputs.waiting(session):
        record = await services.turns.record(session, turn_id)
        if record is None:
            raise NotFound(f"there is no turn {turn_id} in this session, or it ended long ago")
        if record.terminal is not None:
            raise TurnEnded(f"turn {turn_id} has ended ({record.status})")
        raise InvalidArgument(f"turn {turn_id} is no longer waiting ({record.status}); cancel it instead")
    return await TurnCalls(services, credential, session).cancel(CancelIn(turn_id=turn_id))


def _owner_only(credential: Credential, session: str) -> str | None:
    """Whose turns the caller may move: its own, unless it may cancel any. An anonymous one has none of its own."""
    if credential.capability.allows(Operation.TURN_CANCEL, session) or credential.identity.may_assume_any:
        return None
    client_id = credential.identity.client_id
    if client_id is None:
        raise CapabilityError(
            "promoting a turn without the right turn-cancel needs a clientId: that of its owner"
        )
    return client_id


async def _give(
    services: Services, credential: Credential, session: str, messages: list[Message], client_id: str | None
) -> InputOut:
    for message in messages:
        message.client_id = client_id
    done = await TurnCalls(services, credential, session).give(messages)
    receipt = done.result.turn
    if receipt is None:
        raise ServiceError("the input was stored, but no turn took it")
    return InputOut(
        turn_id=receipt.id,
        status=receipt.status,
        position=format_position(done.position, done.epoch),
        repeated=receipt.repeated,
    )


def _part(part: object) -> TextPart | FilePart:
    if isinstance(part, TextPartIn):
        return TextPart(part.text)
    return FilePart(part.url, part.media_type)  # type: ignore[attr-defined]
