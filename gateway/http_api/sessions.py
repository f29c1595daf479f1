"""The plain HTTP API: everything a turn can do, with curl and where websockets are blocked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Match
from starlette.types import Scope

from gateway.auth.authenticator import Credential
from gateway.auth.callers import RequestInfo
from gateway.http_api.body_limit import bounded
from gateway.http_api.conversation import read_conversation
from gateway.http_api.errors import error_response, validation_error
from gateway.http_api.events import stream_events
from gateway.http_api.formats import in_format_asked_for, with_json_body
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
from gateway.services import Host, Services
from selfhost_transport import tracing
from selfhost_transport.errors import ErrorInfo, InvalidArgument, NotFound, ServiceError, TransportError
from selfhost_transport.store.turn_store import TurnRecord
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import check_name
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.serial import format_position

logger = logging.getLogger(__name__)

MAX_MESSAGES = 1000


class TypedErrors(APIRoute):
    """Answers every refusal with `{"error": {code, statusCode, message}}`. A session's name may hold an encoded `/`."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Matches the path as it was sent; the parameters are decoded afterwards."""
        raw: bytes = scope.get("raw_path") or b""
        if b"%2f" not in raw.lower():
            return super().matches(scope)
        sent = raw.partition(b"?")[0].decode("ascii", "replace")
        match, child = super().matches({**scope, "path": sent})
        if match is not Match.NONE:
            params = child["path_params"]
            decoded = {name: unquote(params[name]) for name in self.param_convertors}
            child = {**child, "path_params": {**params, **decoded}}
        return match, child

    def get_route_handler(self) -> Callable[[Request], Any]:
        """The handler with errors turned into answers."""
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            response = in_format(request, await self._answered(handler, request))
            if response.status_code < 400 or not isinstance(response, JSONResponse):
                return response
            return self.refusal(response)

        return answered

    async def _answered(self, handler: Callable[[Request], Any], request: Request) -> Response:
        try:
            readable = await with_json_body(self.bounded(request))
            with tracing.incoming(request.headers.get(tracing.TRACEPARENT)):
                response: Response = await handler(readable)
                return response
        except RequestValidationError as error:
            return error_response(validation_error(error, request.headers.get("content-type", "")))
        except TransportError as error:
            return error_response(error.info)
        except HTTPException as error:
            if isinstance(error.__cause__, TransportError):
                return error_response(error.__cause__.info)
            # 400 is a body that cannot be parsed at all: bad UTF-8, nested too deeply.
            if error.status_code != 400:
                raise
            info = ErrorInfo(Code.INVALID_BODY.value, 400, "the body is not a JSON document in UTF-8")
            return error_response(info)
        except UnicodeEncodeError:
            info = ErrorInfo(Code.INVALID_BODY.value, 400, "a text holds half of a surrogate pair")
            return error_response(info)
        except Exception:
            logger.exception("api.failed path=%s", request.url.path)
            return error_response(ServiceError("internal error; try again").info)

    def refusal(self, refused: JSONResponse) -> Response:
        """A refusal in the form that these paths' clients know."""
        return refused

    def bounded(self, request: Request) -> Request:
        """The request, with a body no larger than these paths take."""
        return bounded(request, running(request).settings.gateway.max_frame_size)


router = APIRouter(route_class=TypedErrors)


def in_format(request: Request, response: Response) -> Response:
    """An answer as the request asks for it."""
    services: Services | None = request.app.state.gateway.services
    return in_format_asked_for(request, response, services.server_id if services is not None else "")


def running(request: Request) -> Services:
    """The services of the gateway that serves this application."""
    gateway: Host = request.app.state.gateway
    return gateway.running()


Running = Annotated[Services, Depends(running)]


async def caller(request: Request, services: Running) -> Credential:
    """The verified caller."""
    return await services.authenticator.of_request(RequestInfo.of(request))


def session_name(session: str) -> str:
    """The session of the path. Raises InvalidChannelName."""
    check_name(session)
    return session


Caller = Annotated[Credential, Depends(caller)]
Session = Annotated[str, Depends(session_name)]


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
