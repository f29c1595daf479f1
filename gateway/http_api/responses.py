"""OpenAI's Responses API: turns for clients that know nothing but its address, resumable and stoppable for good."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import JSONResponse, Response

from gateway.auth.authenticator import Credential
from gateway.http_api.dependencies import Running, caller
from gateway.http_api.event_stream import EventStream
from gateway.http_api.responses_errors import OpenAIRoute, refused
from gateway.http_api.responses_follow import HEADERS, stream_response
from gateway.http_api.responses_items import input_items, page
from gateway.http_api.responses_models import CreateIn
from gateway.http_api.responses_read import ResponseReader, parse_id, read_after
from gateway.http_api.responses_turns import ResponseTurns, SentRequest
from selfhost_transport.errors import NotFound, Unauthorized

_NO_DELETION: Final = (
    "a response is part of its conversation and is kept as long as that; cancel it, or delete its messages"
)

router = APIRouter(route_class=OpenAIRoute, tags=["responses"])


async def known_caller(request: Request, services: Running) -> Credential:
    """The verified caller; for one with a wrong key these clients expect 401."""
    try:
        return await caller(request, services)
    except NotFound as error:
        raise Unauthorized(error.info.message) from error


OpenAICaller = Annotated[Credential, Depends(known_caller)]
Order = Annotated[Literal["asc", "desc"], Query()]
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("/v1/responses")
async def create(request: Request, body: CreateIn, credential: OpenAICaller, services: Running) -> Response:
    """Send a message, or answer calls. The turn goes on without readers too; `conversation` is the session."""
    sent = SentRequest.of(request.headers, await request.body())
    if not body.background or body.stream:
        # Before anything is stored: the answer could not be sent.
        services.require_stream(credential)
    response_id = await ResponseTurns(services, credential).create(body, sent)
    if body.stream:
        return await stream_response(services, credential, response_id)
    reader = ResponseReader(services, credential, response_id, waits=not body.background)
    await reader.__aenter__()
    if body.background:
        try:
            return JSONResponse(reader.json())
        finally:
            await reader.__aexit__()
    waited = EventStream(_waited(reader), reader.__aexit__, HEADERS)
    waited.headers["content-type"] = "application/json"
    return waited


@router.get("/v1/responses/{response_id}", response_class=JSONResponse)
async def retrieve(
    response_id: str,
    credential: OpenAICaller,
    services: Running,
    stream: bool | None = None,
    starting_after: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> Response:
    """A response as it is; with `stream` its events, those after `starting_after` only."""
    after, known = read_after(starting_after, stream), parse_id(response_id)
    if stream:
        return await stream_response(services, credential, known, after=after, each=starting_after is None)
    async with ResponseReader(services, credential, known) as reader:
        return JSONResponse(reader.json())


@router.post("/v1/responses/{response_id}/cancel")
async def cancel(response_id: str, credential: OpenAICaller, services: Running) -> dict[str, Any]:
    """End the turn. When this answers, the cancel is final: nothing of the response comes later."""
    return await ResponseTurns(services, credential).cancel(parse_id(response_id))


@router.delete("/v1/responses/{response_id}")
async def delete(response_id: str, credential: OpenAICaller, services: Running) -> Response:
    """Refused: a response is part of its conversation."""
    async with ResponseReader(services, credential, parse_id(response_id)):
        raise refused(_NO_DELETION, "response_id", "method_not_allowed", status=405)


@router.get("/v1/responses/{response_id}/input_items")
async def list_input_items(
    response_id: str,
    credential: OpenAICaller,
    services: Running,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "desc",
) -> dict[str, Any]:
    """What the response was given: the message, or the answers that its turn went on with."""
    async with ResponseReader(services, credential, parse_id(response_id)) as reader:
        return page(input_items(reader), after, limit, order)


async def _waited(reader: ResponseReader) -> AsyncIterator[bytes]:
    """A response once it is over, with blanks before it, so that no proxy gives up."""
    try:
        async for _ in reader.waiting(lambda: reader.is_over):
            yield b" "
        yield orjson.dumps(reader.json())
    finally:
        await reader.__aexit__()
