"""Who a caller is to this service, and what it may do (acceptance AUT-4, AUT-9)."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from gateway.http_api.dependencies import Caller, Running, TypedErrorRoute
from selfhost_transport.wire.channel import check_name

router = APIRouter(route_class=TypedErrorRoute)


class MeOut(BaseModel):
    """A verified caller. `clientId`: `*` may name any, absent is anonymous."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    client_id: str | None
    application: str
    capability: dict[str, list[str]]
    """Operations by channel pattern: what the credentials really permit."""
    expires: int | None
    """When the credentials expire, ms since the epoch; absent for those that do not."""
    operations: list[str] | None = Field(default=None)
    """With `session`: the permitted operations on it, turn rights included; `*` is everything."""
    agent: str | None = None
    """With `session`: the agent that answers in it; absent where none does."""
    workers: int | None = None
    """With `session`: how many workers serve that agent."""
    free_models: bool | None = None
    """With `session`: whether all of them say that their models cost nothing."""


@router.get("/v1/me", tags=["operations"], response_model_exclude_none=True)
async def me(credential: Caller, services: Running, session: Annotated[str | None, Query()] = None) -> MeOut:
    """What the credentials of this request stand for; `session` names a session whose operations to show."""
    operations: list[str] | None = None
    agent, workers, free_models = None, None, None
    if session is not None:
        check_name(session)
        operations = sorted(credential.capability.operations(session))
        rules = services.rules_for(session)
        if rules is not None:
            agent, workers = rules.agent, await services.fleet.size(rules.agent)
            free_models = await services.fleet.has_free_models(rules.agent)
    return MeOut(
        client_id=credential.identity.announced,
        application=credential.app_id,
        capability=orjson.loads(credential.capability.canonical()),
        expires=credential.expires_ms,
        operations=operations,
        agent=agent,
        workers=workers,
        free_models=free_models,
    )
