"""What operators see and do: live turns, queues, workers, dead letters, the timeline of a turn; and the console's page."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Query
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from gateway.auth.authenticator import Credential
from gateway.http_api.dependencies import Caller, Running, Session, TypedErrorRoute
from gateway.http_api.timeline import TimelineEntry, timeline_of
from gateway.services import Services
from selfhost_transport.commands.ended import last_ended
from selfhost_transport.errors import CapabilityError, NotFound
from selfhost_transport.store.live_sessions import LiveSessions
from selfhost_transport.store.statistics import read_statistics
from selfhost_transport.wire.capability import Operation

_FOLDER: Final = Path(__file__).parent.parent / "console"
_FILES: Final = {"console.js": "text/javascript", "console.css": "text/css"}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_SHOWN: Final = 200

router = APIRouter(route_class=TypedErrorRoute, tags=["operations"])


async def operator(credential: Caller) -> Credential:
    """A caller with `console` on all sessions. Raises CapabilityError."""
    if not credential.capability.allows_on_all(Operation.CONSOLE):
        raise CapabilityError("the credentials do not permit `console` on all sessions")
    return credential


Operator = Annotated[Credential, Depends(operator)]


class _Out(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class LiveTurnOut(_Out):
    """A turn that runs, or that waits for a worker."""

    session: str
    turn_id: str
    status: str
    agent: str
    owner: str
    worker: str | None
    attempts: int


class AgentQueueOut(_Out):
    """Turns of an agent that wait for a worker."""

    agent: str
    depth: int
    oldest_s: float
    workers: int


class WorkerOut(_Out):
    """A worker, the agents that it serves, and how many of the turns above it has."""

    worker: str
    agents: list[str]
    turns: int


class OverviewOut(_Out):
    """The deployment now. `ended`: turns by outcome since the beginning; a rate is the difference of two readings."""

    time_ms: int
    turns: list[LiveTurnOut]
    more_turns: int
    queues: list[AgentQueueOut]
    workers: list[WorkerOut]
    ended: dict[str, int]
    lease_losses: int
    dead_letters: int


class EndedTurnOut(_Out):
    """How a turn ended. `cancelled_by`: absent where the service cancelled it."""

    turn_id: str
    reason: str
    owner: str
    agent: str
    position: str
    cancelled_by: str | None
    error_code: int | None
    error: str | None


@router.get("/v1/operator/overview")
async def overview(caller: Operator, services: Running) -> OverviewOut:
    """Live turns, queues, workers and totals."""
    agents = _agents(services)
    live = LiveSessions(services.redis, services.sessions.keys)
    letters, found, workers, statistics = await asyncio.gather(
        services.stores.dead_letters.all(),
        live.turns(agents),
        live.workers(agents),
        read_statistics(services.redis, services.sessions.keys, agents),
    )
    records = await asyncio.gather(*(services.turns.record(*one) for one in found[:_SHOWN]))
    turns = [
        LiveTurnOut(
            session=session, turn_id=record.turn_id, status=record.status, agent=record.agent,
            owner=record.owner, worker=record.worker, attempts=record.attempts,
        )
        for (session, _), record in zip(found, records, strict=False)
        if record is not None
    ]  # fmt: skip
    return OverviewOut(
        time_ms=int(time.time() * 1000),
        turns=turns,
        more_turns=max(0, len(found) - _SHOWN),
        queues=[
            AgentQueueOut(
                agent=agent, depth=state.depth, oldest_s=state.oldest_s,
                workers=sum(agent in worker.agents for worker in workers),
            )
            for agent, state in sorted(statistics.queues.items())
        ],
        workers=[
            WorkerOut(
                worker=one.worker, agents=list(one.agents), turns=sum(turn.worker == one.worker for turn in turns)
            )
            for one in workers
        ],
        ended=statistics.turns,
        lease_losses=statistics.lease_losses,
        dead_letters=len(letters),
    )  # fmt: skip


@router.get("/v1/sessions/{session}/ended")
async def ended(
    session: Session,
    credential: Caller,
    services: Running,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> list[EndedTurnOut]:
    """The newest turns that have ended, oldest first: why, and who cancelled."""
    credential.capability.require(Operation.HISTORY, session)
    lines = await last_ended(services.sessions.history, session, limit)
    return [
        EndedTurnOut(
            turn_id=line.turn, reason=line.reason, owner=line.owner, agent=line.agent, position=line.position,
            cancelled_by=line.cancelled_by, error_code=line.error_code, error=line.error,
        )
        for line in lines
    ]  # fmt: skip


@router.get("/v1/sessions/{session}/turns/{turn_id}/timeline")
async def timeline(
    session: Session, turn_id: str, credential: Caller, services: Running
) -> list[TimelineEntry]:
    """What happened in a turn, in order: sent, queued, started, first output, tools, cancels, its end."""
    credential.capability.require(Operation.HISTORY, session)
    moments = await timeline_of(services.sessions.history, session, turn_id)
    if not moments:
        raise NotFound("there is no such turn in this session's history")
    return moments


def _agents(services: Services) -> set[str]:
    return {rule.agent for rule in services.settings.namespaces if rule.agent is not None}


def add_console(app: FastAPI) -> None:
    """Serve the page and its two files."""

    async def page() -> Response:
        return _file("index.html", "text/html; charset=utf-8", {"Content-Security-Policy": _POLICY})

    async def part(name: str) -> Response:
        if name not in _FILES:
            return Response(status_code=404)
        return _file(name, _FILES[name], {})

    app.add_api_route("/console", page, methods=["GET"], include_in_schema=False)
    app.add_api_route("/console/{name}", part, methods=["GET"], include_in_schema=False)


def _file(name: str, media_type: str, headers: dict[str, Any]) -> Response:
    common = {
        "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache",
    }  # fmt: skip
    return Response((_FOLDER / name).read_bytes(), media_type=media_type, headers={**common, **headers})
