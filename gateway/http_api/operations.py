"""What operators do, over HTTP: the commands with `--url` and the console use these."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from gateway.auth.authenticator import Credential
from gateway.http_api.console import Operator
from gateway.http_api.dependencies import Running, Session, TypedErrorRoute
from selfhost_transport.commands.inspect import SessionReport
from selfhost_transport.commands.operating import (
    PUSH,
    CancelReport,
    EmergencyStop,
    Requeued,
    StoreOperations,
    UndeliveredLine,
)
from selfhost_transport.commands.session_list import SessionLine
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.store.turn_store import CancelFilter, Scope
from selfhost_transport.wire.capability import Operation

router = APIRouter(route_class=TypedErrorRoute, tags=["operations"])


def _operations(services: Running) -> StoreOperations:
    return StoreOperations(services.stores, scans=False)


Work = Annotated[StoreOperations, Depends(_operations)]


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class DeadLetterOut(_Wire):
    """A turn whose workers were all lost."""

    letter_id: str
    session: str
    turn_id: str
    attempts: int
    worker: str
    time_ms: int


class WorkerNameOut(_Wire):
    """A worker, and the agents that it serves."""

    worker: str
    agents: list[str]


class WebhookOut(_Wire):
    """A webhook: events that wait for it, and that it has given up."""

    name: str
    waiting: int
    dead: int


class LetterIn(_Wire):
    """Which letter."""

    letter_id: str = Field(min_length=1)


class DrainIn(_Wire):
    """Which worker to drain."""

    worker: str = Field(min_length=1)


class StopIn(_Wire):
    """Sessions by the beginning of their names; '' = all. `by`: whom to record, beside the credentials."""

    prefix: str
    by: str | None = None
    force: bool = False
    """Do not ask the agents' hooks."""


class StopTurnsIn(_Wire):
    """Which turns of a session: exactly one of `turnId`, `clientId` and `all`."""

    turn_id: str | None = None
    client_id: str | None = None
    all: bool = False
    by: str | None = None
    force: bool = False
    """Do not ask the agents' hooks."""


@router.get("/v1/operator/sessions")
async def sessions(
    caller: Operator, work: Work, prefix: str = "", limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000
) -> list[SessionLine]:
    """Sessions in use, by attachments or open turns, whose names begin with `prefix`; those with the newest entries first."""
    found = await work.sessions(prefix)
    return sorted(found, key=lambda line: line.last_ms, reverse=True)[:limit]


@router.get("/v1/operator/sessions/{session}")
async def session_report(
    session: Session,
    caller: Operator,
    work: Work,
    ended: Annotated[int, Query(ge=0, le=1000)] = 10,
    entries: Annotated[int, Query(ge=0, le=1000)] = 10,
) -> SessionReport:
    """The state of a session: open turns, how others ended, its newest entries. Needs `history` on it, too."""
    caller.capability.require(Operation.HISTORY, session)
    return await work.report(session, ended, entries)


@router.post("/v1/operator/sessions/{session}/cancel")
async def cancel(session: Session, body: StopTurnsIn, caller: Operator, work: Work) -> CancelReport:
    """End turns of a session at once, also of others."""
    given = [
        CancelFilter(scope, value)
        for scope, value in (
            (Scope.TURN, body.turn_id),
            (Scope.OWNER, body.client_id),
            (Scope.ALL, "true" if body.all else None),
        )
        if value is not None
    ]
    if len(given) != 1:
        raise InvalidArgument("name exactly one of turnId, clientId, all")
    return await work.cancel(session, given[0], body.by or name_of(caller), force=body.force)


@router.post("/v1/operator/cancel")
async def cancel_all(body: StopIn, caller: Operator, work: Work) -> EmergencyStop:
    """The emergency stop: end every turn of the sessions in use whose names begin with `prefix`."""
    return await work.cancel_all(body.prefix, body.by or name_of(caller), force=body.force)


@router.get("/v1/operator/workers")
async def workers(caller: Operator, work: Work) -> list[WorkerNameOut]:
    """The workers that serve agents of the configuration."""
    return [WorkerNameOut(worker=one.worker, agents=list(one.agents)) for one in await work.workers()]


@router.post("/v1/operator/workers/drain", status_code=202)
async def drain(body: DrainIn, caller: Operator, work: Work) -> dict[str, str]:
    """Ask a worker to end: its turns are finished or handed over. Raises NotFound."""
    await work.drain(body.worker)
    return {"worker": body.worker, "status": "draining"}


@router.get("/v1/operator/dead")
async def dead(caller: Operator, work: Work) -> list[DeadLetterOut]:
    """Dead letters, oldest first."""
    return [
        DeadLetterOut(
            letter_id=one.letter_id, session=one.session, turn_id=one.turn_id, attempts=one.attempts,
            worker=one.worker, time_ms=one.time_ms,
        )
        for one in await work.dead()
    ]  # fmt: skip


@router.post("/v1/operator/dead/requeue", status_code=202)
async def requeue(body: LetterIn, caller: Operator, work: Work) -> Requeued:
    """Send a dead letter's message again; twice is once."""
    return await work.requeue(body.letter_id)


@router.get("/v1/operator/webhooks")
async def webhooks(caller: Operator, services: Running) -> list[WebhookOut]:
    """The webhooks of the configuration."""
    queues = [
        (rule.name, services.stores.ended_turns(f"webhook.{rule.name}"))
        for rule in services.settings.webhooks
    ]
    counts = await asyncio.gather(*(asyncio.gather(queue.waiting(), queue.buried()) for _, queue in queues))
    return [
        WebhookOut(name=name, waiting=waiting, dead=len(buried))
        for (name, _), (waiting, buried) in zip(queues, counts, strict=True)
    ]


@router.get("/v1/operator/webhooks/{name}/dead")
async def dead_of_webhook(name: str, caller: Operator, work: Work) -> list[UndeliveredLine]:
    """Events that a webhook's address did not accept in time, oldest first; kept for 30 days."""
    return await work.undelivered(name)


@router.post("/v1/operator/webhooks/{name}/requeue", status_code=202)
async def requeue_of_webhook(name: str, body: LetterIn, caller: Operator, work: Work) -> dict[str, str]:
    """Deliver one of those again, after what waits, under its first `webhook-id`."""
    await work.deliver_again(name, body.letter_id)
    return {"letterId": body.letter_id, "status": "queued"}


@router.get("/v1/operator/push/dead")
async def dead_pushes(caller: Operator, work: Work) -> list[UndeliveredLine]:
    """Pushes that their service did not take, oldest first; kept for 30 days."""
    return await work.undelivered(PUSH)


@router.post("/v1/operator/push/requeue", status_code=202)
async def requeue_push(body: LetterIn, caller: Operator, work: Work) -> dict[str, str]:
    """Deliver one of those again."""
    await work.deliver_again(PUSH, body.letter_id)
    return {"letterId": body.letter_id, "status": "queued"}


def name_of(caller: Credential) -> str:
    """Whom to record for what a caller does."""
    return caller.identity.client_id or caller.key_name
