"""What a deployment holds of a session, and its end, for operators over HTTP: `export SESSION` and `erase` with `--url`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import StreamingResponse

from gateway.auth.authenticator import Credential
from gateway.http_api.console import Operator
from gateway.http_api.dependencies import Session, TypedErrorRoute
from gateway.http_api.operations import Work, name_of
from selfhost_transport.commands.holdings import SessionHoldings
from selfhost_transport.commands.operating import PersonTraces
from selfhost_transport.store.erasure import ErasedSession
from selfhost_transport.store.person_erasure import ErasedPerson
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import check_name

router = APIRouter(route_class=TypedErrorRoute, tags=["operations"])
LINES = "application/x-ndjson"
_LINES_OUT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Lines of JSON, each with its `kind`.",
        "content": {LINES: {"schema": {"type": "string"}}},
    }
}


class EraseIn(BaseModel):
    """`by`: whom to record, beside the credentials."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    dry_run: bool = True
    """Only say how much there is."""
    free: bool = False
    """Let the name be used again at once."""
    by: Annotated[str | None, Field(min_length=1)] = None


@router.get("/v1/operator/sessions/{session}/export", response_class=StreamingResponse, responses=_LINES_OUT)
async def export(session: Session, caller: Operator, work: Work) -> StreamingResponse:
    """Everything that there is of a session. Needs `history` on it, too. Raises NotFound."""
    caller.capability.require(Operation.HISTORY, session)
    await work.holdings(session)
    return StreamingResponse(
        _packed(work.lines(session)), media_type=LINES, headers={"X-Accel-Buffering": "no"}
    )


@router.post("/v1/operator/sessions/{session}/erase")
async def erase(
    session: Session, body: EraseIn, caller: Operator, work: Work
) -> SessionHoldings | ErasedSession:
    """Cancel the turns of a session and erase everything of it; by default, only say how much that is.

    Clients that are attached get the error 104019, as does whatever is sent to its name for a day. Repeat a request that failed.
    """
    if body.dry_run:
        return await work.holdings(session)
    return await work.erase(session, body.by or name_of(caller), free=body.free)


class PersonIn(BaseModel):
    """In which sessions."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    sessions: Annotated[list[str], Field(min_length=1, max_length=10_000)]


class ErasePersonIn(PersonIn):
    """`by`: whom to record, beside the credentials."""

    by: Annotated[str | None, Field(min_length=1)] = None


@router.get("/v1/operator/people/{client_id}/export", response_class=StreamingResponse, responses=_LINES_OUT)
async def export_person(
    client_id: str, session: Annotated[list[str], Query(min_length=1)], caller: Operator, work: Work
) -> StreamingResponse:
    """What these sessions have of a person, by client id: what they sent, what answers it, whatever names them."""
    _require_history(caller, session)
    lines = _packed(work.lines_of_person(client_id, session))
    return StreamingResponse(lines, media_type=LINES, headers={"X-Accel-Buffering": "no"})


@router.post("/v1/operator/people/{client_id}/traces")
async def traces(client_id: str, body: PersonIn, caller: Operator, work: Work) -> list[PersonTraces]:
    """In which of these sessions there is something of a person, and how much: what `erase` would take."""
    _require_history(caller, body.sessions)
    return await work.traces(client_id, body.sessions)


@router.post("/v1/operator/people/{client_id}/erase")
async def erase_person(client_id: str, body: ErasePersonIn, caller: Operator, work: Work) -> ErasedPerson:
    """Erase what these sessions have of a person, and their pushes and letters. Sessions that no one else uses go as a whole."""
    return await work.erase_person(client_id, body.sessions, body.by or name_of(caller))


def _require_history(caller: Credential, sessions: Sequence[str]) -> None:
    for session in sessions:
        check_name(session)
        caller.capability.require(Operation.HISTORY, session)


async def _packed(lines: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for line in lines:
        yield orjson.dumps(line) + b"\n"
