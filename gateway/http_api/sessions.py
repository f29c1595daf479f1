"""The plain HTTP API: everything a turn can do, with curl and where websockets are blocked."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.responses import JSONResponse, StreamingResponse

from gateway.auth.callers import RequestInfo
from gateway.http_api.conversation import read_conversation
from gateway.http_api.dependencies import Caller, Running, Session, TypedErrorRoute
from gateway.http_api.events import stream_events
from gateway.http_api.models import (
    CancelIn,
    CancelOut,
    MessagesOut,
    SendIn,
    SendOut,
    TurnOut,
    TurnsOut,
    WakeIn,
    WakeOut,
)
from gateway.http_api.turn_calls import TurnCalls
from gateway.services import Services
from selfhost_transport.errors import InvalidArgument, NotFound, TransportError
from selfhost_transport.store.turn_store import TurnRecord
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.serial import format_position

MAX_MESSAGES = 1000

router = APIRouter(route_class=TypedErrorRoute)


@router.post("/v1/sessions/{session}/turns", status_code=202, tags=["turns"])
async def send(session: Session, body: SendIn, credential: Caller, services: Running) -> SendOut:
    """Send a message; the turn that answers it is accepted in the same step."""
    return await TurnCalls(services, credential, session).send(body)


@router.post("/v1/sessions/{session}/cancel", tags=["turns"])
async def cancel(session: Session, body: CancelIn, credential: Caller, services: Running) -> CancelOut:
    """End turns. Nothing of them has a later position than the one answered."""
    return await TurnCalls(services, credential, session).cancel(body)


@router.get("/v1/sessions/{session}/turns", tags=["turns"])
async def turns(session: Session, credential: Caller, services: Running) -> TurnsOut:
    """The turns that have no terminal yet."""
    credential.capability.require(Operation.SUBSCRIBE, session)
    head = await services.sessions.open(session)
    records = await services.turns.active(session)
    waiting = await services.inputs.waiting(session)
    rules = services.rules_for(session)
    return TurnsOut(
        turns=[_turn(record, head.epoch, waiting) for record in records],
        agents=await services.fleet.size(rules.agent) if rules is not None else 0,
        queued=len(waiting) + sum(record.status == "pending" for record in records),
    )


@router.get("/v1/sessions/{session}/turns/{turn_id}", tags=["turns"])
async def turn(session: Session, turn_id: str, credential: Caller, services: Running) -> TurnOut:
    """One turn, also for a day after its terminal."""
    credential.capability.require(Operation.SUBSCRIBE, session)
    record = await services.turns.record(session, turn_id)
    if record is None:
        raise NotFound("there is no such turn in this session, or it ended long ago")
    waiting = await services.inputs.waiting(session)
    return _turn(record, (await services.sessions.open(session)).epoch, waiting)


@router.get("/v1/sessions/{session}/messages", tags=["sessions"])
async def messages(
    session: Session,
    credential: Caller,
    services: Running,
    limit: Annotated[int, Query(ge=1, le=MAX_MESSAGES)] = 200,
) -> MessagesOut:
    """The newest `limit` messages of the conversation, not counting other publishes between them."""
    credential.capability.require(Operation.HISTORY, session)
    hidden = services.hidden_from(credential, session)
    conversation = await read_conversation(services.sessions, session, limit, hidden)
    at = conversation.truncated_at
    epoch = (await services.sessions.open(session)).epoch if at is not None else ""
    return MessagesOut(
        messages=conversation.messages,
        turns=conversation.turns,
        truncated=conversation.truncated,
        truncated_at=format_position(at, epoch) if at is not None else None,
    )


@router.get("/v1/sessions/{session}/events", tags=["sessions"], response_class=StreamingResponse)
async def events(
    session: Session,
    credential: Caller,
    services: Running,
    last_event_id: Annotated[str | None, Header()] = None,
    after: str | None = None,
) -> Response:
    """The session's entries as server-sent events; `Last-Event-ID` (or `after`) continues without a gap."""
    credential.capability.require(Operation.SUBSCRIBE, session)
    return await stream_events(services, session, last_event_id or after, credential)


async def wake(request: Request, body: WakeIn, services: Running) -> Response:
    """Accepts the wake-up of AI Transport clients. The turn was accepted with its message already.

    The SDK sends no credentials along; callers that may watch the session get the turn. Where no worker would ever answer,
    a success would leave the person waiting. Raises InvalidArgument there.
    """
    if services.rules_for(body.session_name) is None:
        raise InvalidArgument(
            "no worker answers in this session's namespace: post the wake-up to your own agent (`api`), or name an `agent` in "
            "its [[namespaces]]"
        )
    found = None
    if await _may_watch(request, services, body.session_name):
        found = await services.turns.turn_of_event(body.session_name, body.input_event_id)
    return JSONResponse(WakeOut(run_id=found).model_dump(by_alias=True, exclude_none=True), 202)


async def _may_watch(request: Request, services: Services, session: str) -> bool:
    try:
        credential = await services.authenticator.of_request(RequestInfo.of(request))
    except TransportError:
        return False
    return credential.capability.allows(Operation.SUBSCRIBE, session)


def _turn(record: TurnRecord, epoch: str, waiting: list[str]) -> TurnOut:
    return TurnOut(
        turn_id=record.turn_id,
        status=record.status,
        agent=record.agent,
        owner=record.owner or None,
        input_id=record.input_id,
        attempts=record.attempts,
        worker=record.worker,
        position=format_position(record.terminal, epoch) if record.terminal else None,
        queue_position=waiting.index(record.turn_id) + 1 if record.turn_id in waiting else None,
    )
