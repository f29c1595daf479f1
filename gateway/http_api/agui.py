"""AG-UI: runs over HTTP, resumable and stoppable for good, for `HttpAgent`, CopilotKit's client and TanStack AI's.

One address serves them all: `/v1/agui` takes runs, CopilotKit's single route and TanStack's requests; below it are
CopilotKit's four paths, `connect` and `stop`. A thread's id is the session's name.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Header, Query, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response, StreamingResponse

from gateway.auth.authenticator import Credential
from gateway.http_api import agui_view
from gateway.http_api.agui_follow import Follow, connect, follow_run, waiting_turn
from gateway.http_api.agui_models import AgentStopIn, AgentStopOut, RouteIn, RouteOrRunIn, RunIn, ThreadStopIn
from gateway.http_api.agui_turns import AguiTurns, Run
from gateway.http_api.dependencies import Caller, Running, WholeConversationRoute
from gateway.http_api.reader import SessionReader, running_turn
from gateway.services import Services
from selfhost_transport.errors import InvalidArgument, NotFound
from selfhost_transport.turns.agui_progress import read_cursor
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import check_name

_MAX_MESSAGES: Final = 1000
_STREAM: Final = "text/event-stream"
_STOPPED: Final = {"type": "RUN_ERROR", "message": "the run was stopped", "code": "STOPPED"}


class AguiRoute(WholeConversationRoute):
    """Routes of AG-UI clients."""

    send_less = "; of `messages` only the newest count: send those alone"


router = APIRouter(route_class=AguiRoute, tags=["ag-ui"])
LastEventId = Annotated[str | None, Header()]


@router.post("/v1/agui", response_class=StreamingResponse)
async def run(
    request: Request,
    body: RouteOrRunIn,
    credential: Caller,
    services: Running,
    last_event_id: LastEventId = None,
) -> Response:
    """Run: RunAgentInput to server-sent events. The same run again continues it, with `Last-Event-ID` from there."""
    if isinstance(body, RouteIn):
        return await _routed(request, services, credential, body)
    return await _run(request, services, credential, body, last_event_id)


@router.post("/v1/agui/connect", response_class=StreamingResponse)
async def connect_thread(body: RunIn, credential: Caller, services: Running) -> Response:
    """The conversation as a snapshot, and the answer that is being written."""
    return await _connect(services, credential, body)


@router.post("/v1/agui/stop")
async def stop(body: ThreadStopIn, credential: Caller, services: Running) -> AgentStopOut:
    """End the turn of a run, or the caller's running turns. When this answers, the stop is final."""
    return await _stop(services, credential, body.thread_id, body.run_id, body.sent_message_id)


@router.get("/v1/agui")
async def read(
    credential: Caller,
    services: Running,
    thread_id: Annotated[str | None, Query(alias="threadId")] = None,
    run_id: Annotated[str | None, Query(alias="runId")] = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_MESSAGES)] = 200,
    last_event_id: LastEventId = None,
) -> Response:
    """TanStack's reads: with `runId` the stream of a run, from its beginning; else the thread's messages."""
    if run_id is not None:
        return await _join(services, credential, thread_id, run_id, last_event_id)
    if thread_id is None:
        raise InvalidArgument("name a `threadId`, or the `runId` of a run to join")
    check_name(thread_id)
    credential.capability.require(Operation.HISTORY, thread_id)
    turn_id = await running_turn(services, credential, thread_id)
    async with SessionReader(
        services, credential, thread_id, lambda tree: TreeView(tree).is_read(2 * limit)
    ) as reader:
        return JSONResponse(agui_view.hydration(reader.tree, thread_id, turn_id, limit))


@router.get("/v1/agui/info")
async def info(credential: Caller, services: Running) -> dict[str, Any]:
    """What CopilotKit's client asks first."""
    return agui_view.info(services)


@router.post("/v1/agui/agent/{agent}/run", response_class=StreamingResponse)
async def agent_run(
    agent: str,
    request: Request,
    body: RunIn,
    credential: Caller,
    services: Running,
    last_event_id: LastEventId = None,
) -> Response:
    """A run, as CopilotKit's client asks for it. The thread's namespace names the agent, not the path."""
    return await _run(request, services, credential, body, last_event_id)


@router.post("/v1/agui/agent/{agent}/connect", response_class=StreamingResponse)
async def agent_connect(agent: str, body: RunIn, credential: Caller, services: Running) -> Response:
    """A snapshot and what follows, as CopilotKit's client asks for it on mount."""
    return await _connect(services, credential, body)


@router.post("/v1/agui/agent/{agent}/stop/{thread}")
async def agent_stop(
    agent: str,
    thread: str,
    credential: Caller,
    services: Running,
    body: Annotated[AgentStopIn | None, Body()] = None,
) -> AgentStopOut:
    """A stop, as CopilotKit's client asks for it."""
    return await _stop(services, credential, thread, body.run_id if body is not None else None)


async def _run(
    request: Request, services: Services, credential: Credential, body: RunIn, after: str | None
) -> Response:
    accepted = request.headers.get("accept", "*/*")
    if _STREAM not in accepted and "*/*" not in accepted:
        raise InvalidArgument(f"runs are sent as {_STREAM}: accept that", status_code=406)
    check_name(body.thread_id)
    # Before anything is stored: the answer could not be streamed.
    credential.capability.require(Operation.SUBSCRIBE, body.thread_id)
    services.require_stream(credential)
    if after:
        read_cursor(after)
    asked = await AguiTurns(services, credential, body.thread_id).ask(body)
    how = Follow(old=body.protocol_version is None, after=after or None)
    return await follow_run(services, credential, body.thread_id, asked, how)


async def _connect(services: Services, credential: Credential, body: RunIn) -> Response:
    thread = body.thread_id
    check_name(thread)
    credential.capability.require(Operation.SUBSCRIBE, thread)
    turn_id = await running_turn(services, credential, thread)
    if turn_id is None and any(True for _ in await services.turns.active(thread)):
        async with SessionReader(
            services, credential, thread, lambda tree: TreeView(tree).is_read(1)
        ) as reader:
            turn_id = waiting_turn(reader.tree)
    how = Follow(old=body.protocol_version is None, newest=True)
    return await connect(services, credential, thread, Run(body.run_id, turn_id), how)


async def _stop(
    services: Services, credential: Credential, thread: str, run_id: str | None, sent: str | None = None
) -> AgentStopOut:
    check_name(thread)
    done = await AguiTurns(services, credential, thread).stop(run_id, sent)
    if not done.matched:
        return AgentStopOut(stopped=False, message="nothing of this caller runs here")
    return AgentStopOut(stopped=True, turn_ids=done.matched, position=done.position, interrupt=dict(_STOPPED))


async def _join(
    services: Services, credential: Credential, thread: str | None, run_id: str, after: str | None
) -> Response:
    turn_id, named = agui_view.read_run_id(run_id)
    thread = thread or named
    if thread is None:
        raise NotFound("a run that no GET has shown is joined with its `threadId`")
    check_name(thread)
    credential.capability.require(Operation.SUBSCRIBE, thread)
    how = Follow(old=True, after=after or None, newest=turn_id is not None)
    if turn_id is not None:
        return await follow_run(services, credential, thread, Run(run_id, turn_id), how)
    found = await AguiTurns(services, credential, thread).find(run_id)
    return await follow_run(services, credential, thread, found, how)


async def _routed(request: Request, services: Services, credential: Credential, body: RouteIn) -> Response:
    if body.method == "info":
        return JSONResponse(agui_view.info(services))
    if body.method == "agent/stop":
        wanted = AgentStopIn.model_validate(body.body or {})
        thread = str(body.params.get("threadId") or (body.body or {}).get("threadId") or "")
        done = await _stop(services, credential, thread, wanted.run_id)
        return JSONResponse(done.model_dump(by_alias=True, exclude_none=True))
    try:
        asked = RunIn.model_validate(body.body or {})
    except ValidationError as error:
        raise InvalidArgument(f"`body` is no RunAgentInput: {error.errors()[0]['msg']}") from None
    if body.method == "agent/run":
        return await _run(request, services, credential, asked, None)
    return await _connect(services, credential, asked)
