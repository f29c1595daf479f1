"""Plain `useChat`, without any SDK of a session: the UI message stream over HTTP, resumable and stoppable for good.

The paths are those that `DefaultChatTransport` makes of its `api`: with `/api/chat` the chat's id is the session's name;
with `/v1/ui/SESSION` the session is in the path.
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Query, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from gateway.auth.authenticator import Credential
from gateway.http_api import chat_view
from gateway.http_api.chat_models import ChatIn, ChatStopIn, StopOut, WakeOrChatIn
from gateway.http_api.chat_stream import HEADERS, stream_counted, stream_turn
from gateway.http_api.chat_turns import ChatTurns, TurnToStream
from gateway.http_api.dependencies import Caller, Running, Session, WholeConversationRoute, caller
from gateway.http_api.models import WakeIn
from gateway.http_api.reader import SessionReader, running_turn
from gateway.http_api.sessions import wake
from gateway.services import Services
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import check_name

_MAX_MESSAGES = 1000
_NOTHING_RUNS = b'data: {"type":"finish"}\n\ndata: [DONE]\n\n'


class PlainTextRoute(WholeConversationRoute):
    """Refusals as text that a person can read: `useChat` shows the body of a refusal as its error."""

    send_less = "; send the last message alone, with prepareSendMessagesRequest"

    def refusal(self, refused: JSONResponse) -> Response:
        """The message alone."""
        message = orjson.loads(bytes(refused.body))["error"]["message"]
        kept = {name: value for name, value in refused.headers.items() if name == "retry-after"}
        return PlainTextResponse(message, refused.status_code, headers=kept)


router = APIRouter(route_class=PlainTextRoute, tags=["ui message stream"])


@router.post("/v1/ui/{session}", response_class=StreamingResponse)
async def post(
    session: Session, request: Request, body: ChatIn, credential: Caller, services: Running
) -> Response:
    """Send, edit, regenerate, or answer calls; the response streams the turn."""
    _require_json(request)
    return await _asked(services, credential, session, body)


@router.post("/api/chat", response_class=StreamingResponse)
async def post_chat(request: Request, body: WakeOrChatIn, services: Running) -> Response:
    """As `/v1/ui/{session}`, with the session's name as `id`. Also the wake-up of AI Transport clients."""
    if isinstance(body, WakeIn):
        return await wake(request, body, services)
    _require_json(request)
    if not body.id:
        raise InvalidArgument("the chat needs an `id`: useChat({id}); it is the name of the session")
    check_name(body.id)
    return await _asked(services, await caller(request, services), body.id, body)


@router.post("/v1/workflow/{session}", response_class=StreamingResponse)
async def post_workflow(
    session: Session, request: Request, credential: Caller, services: Running
) -> Response:
    """As `/v1/ui/{session}`, for `WorkflowChatTransport`: it names no content type, and counts chunks."""
    try:
        body = ChatIn.model_validate_json(await request.body())
    except ValidationError as error:
        raise InvalidArgument(f"the body is no chat: {error.errors()[0]['msg']}") from None
    _require_stream(services, credential, session)
    asked = await ChatTurns(services, credential, session).ask(body)
    return await stream_counted(services, credential, session, asked)


@router.get("/v1/workflow/{session}/{run}/stream", response_class=StreamingResponse)
async def resume_workflow(
    session: Session,
    run: str,
    credential: Caller,
    services: Running,
    start: Annotated[int, Query(alias="startIndex", ge=-(2**31), lt=2**31)] = 0,
) -> Response:
    """A turn from its chunk `startIndex` on; with another id than that of a turn, the answer that is being written."""
    credential.capability.require(Operation.SUBSCRIBE, session)
    named = await services.turns.record(session, run)
    turn_id = run if named is not None else await running_turn(services, credential, session)
    if turn_id is None:
        # A 204 is an error to this client.
        return Response(_NOTHING_RUNS, media_type="text/event-stream", headers=HEADERS)
    return await stream_counted(services, credential, session, TurnToStream(turn_id), start)


@router.get("/v1/ui/{session}/stream", response_class=StreamingResponse)
@router.get("/v1/ui/{session}/{chat}/stream", response_class=StreamingResponse, include_in_schema=False)
@router.get("/api/chat/{session}/stream", response_class=StreamingResponse)
async def resume(
    session: Session,
    credential: Caller,
    services: Running,
    last: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """The answer that is being written, from its beginning; 204 when there is none.

    `last`: the id of the last message that the page has. If that is a question whose answer has ended meanwhile, the
    answer is streamed.
    """
    credential.capability.require(Operation.SUBSCRIBE, session)
    turn_id = await running_turn(services, credential, session)
    if turn_id is None and last:
        turn_id = await ChatTurns(services, credential, session).answer_to(last)
    if turn_id is None:
        return Response(status_code=204)
    return await stream_turn(services, credential, session, TurnToStream(turn_id))


@router.get("/v1/ui/{session}/messages")
@router.get("/v1/ui/{session}/{chat}/messages", include_in_schema=False)
@router.get("/api/chat/{session}/messages")
async def messages(
    session: Session,
    credential: Caller,
    services: Running,
    limit: Annotated[int, Query(ge=1, le=_MAX_MESSAGES)] = 200,
) -> list[dict[str, Any]]:
    """The conversation for `useChat({messages})`; without the answer that is being written: its stream has that."""
    credential.capability.require(Operation.HISTORY, session)
    # A turn that was suspended is several messages on the wire; one more page completes it.
    async with SessionReader(
        services, credential, session, lambda tree: TreeView(tree).is_read(2 * limit)
    ) as reader:
        return chat_view.history(reader.tree, limit)


@router.post("/v1/ui/{session}/stop")
@router.post("/v1/ui/{session}/{chat}/stop", include_in_schema=False)
@router.post("/api/chat/{session}/stop")
async def stop(
    session: Session,
    credential: Caller,
    services: Running,
    body: Annotated[ChatStopIn | None, Body()] = None,
) -> StopOut:
    """End the caller's running turns, or the one that is named. When this answers, the stop is final."""
    return await ChatTurns(services, credential, session).stop(body or ChatStopIn())


async def _asked(services: Services, credential: Credential, session: str, body: ChatIn) -> Response:
    _require_stream(services, credential, session)
    asked = await ChatTurns(services, credential, session).ask(body)
    return await stream_turn(services, credential, session, asked)


def _require_stream(services: Services, credential: Credential, session: str) -> None:
    """Before anything is stored: the answer could not be streamed. Raises CapabilityError, RateLimited."""
    credential.capability.require(Operation.SUBSCRIBE, session)
    services.require_stream(credential)


def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InvalidArgument(
            "send the chat as application/json, as DefaultChatTransport does; "
            "WorkflowChatTransport's address is /v1/workflow/SESSION",
            status_code=415,
        )
