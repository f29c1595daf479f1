"""Push subscriptions of browsers: each person's own."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from gateway.auth.authenticator import Credential
from gateway.http_api.dependencies import Caller, Running, TypedErrorRoute
from gateway.push.message import is_push_service, origin_of
from gateway.push.validity import source_of
from gateway.services import Services
from selfhost_transport.errors import BadRequest, InvalidArgument, NotFound
from selfhost_transport.store.push import PushSubscription
from selfhost_transport.wire import vapid
from selfhost_transport.wire.codes import Code

router = APIRouter(route_class=TypedErrorRoute, tags=["push"])

_AUTH_BYTES: Final = 16
_MOST_LETTERS: Final = 2_048


def _secret(text: str) -> str:
    if len(vapid.decode(text)) != _AUTH_BYTES:
        raise ValueError("auth is 16 bytes in base64url")
    return text


class KeysIn(BaseModel):
    """The keys that a browser makes for a subscription, base64url."""

    model_config = ConfigDict(hide_input_in_errors=True)

    p256dh: Annotated[str, Field(max_length=128), AfterValidator(vapid.require_point)]
    auth: Annotated[str, Field(max_length=64), AfterValidator(_secret)]


class SubscriptionIn(BaseModel):
    """A browser's `PushSubscription`, as its `toJSON()` gives it."""

    # Browsers say more than is needed here, as `expirationTime`.
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", hide_input_in_errors=True
    )

    endpoint: str = Field(min_length=1, max_length=_MOST_LETTERS)
    keys: KeysIn
    client_id: str | None = None
    """Whose; absent: that of the credentials. Only a key may name any."""


class PushOut(BaseModel):
    """What a page subscribes with: the `applicationServerKey`."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    public_key: str


class SubscriptionOut(BaseModel):
    """A subscription. `expires`: ms since the epoch; put it again before, as a page does when it is opened."""

    id: str
    expires: int


@router.get("/v1/push")
async def push(credential: Caller, services: Running) -> PushOut:
    """The key that pages subscribe with. 404 where the gateway sends no pushes."""
    return PushOut(public_key=_public_key(services))


@router.put("/v1/push/subscriptions")
async def subscribe(body: SubscriptionIn, credential: Caller, services: Running) -> SubscriptionOut:
    """Send pushes to this browser: the caller's answers that end when no client of its name is attached to their session."""
    public_key = _public_key(services)
    settings, person = services.settings.push, _person(credential, body.client_id)
    if not is_push_service(body.endpoint, settings.services):
        raise InvalidArgument(
            f"{_shown(body.endpoint)} is not one of the push services of this gateway (push.services)"
        )
    keep_ms = settings.keep // timedelta(milliseconds=1)
    expires_ms = int(time.time() * 1000) + keep_ms
    one = PushSubscription(
        body.endpoint, body.keys.p256dh, body.keys.auth, public_key, expires_ms, source_of(credential)
    )
    await services.stores.push.subscribe(person, one, keep_ms)
    return SubscriptionOut(id=one.subscription_id, expires=expires_ms)


@router.delete("/v1/push/subscriptions/{one}", status_code=204, response_class=Response)
async def unsubscribe(
    one: str,
    credential: Caller,
    services: Running,
    client_id: Annotated[str | None, Query(alias="clientId")] = None,
) -> None:
    """Send no more pushes to this browser; one that has no subscription is as well."""
    _public_key(services)
    await services.stores.push.unsubscribe(_person(credential, client_id), [one])


def _public_key(services: Services) -> str:
    found = services.settings.push.public_key
    if found is None:
        raise NotFound("this gateway sends no pushes: configure [push]")
    return found


def _person(credential: Credential, claimed: str | None) -> str:
    """Raises BadRequest 40012."""
    person = credential.identity.stamp(claimed)
    if person is None:
        raise BadRequest("pushes are for clients with a clientId", code=Code.INVALID_CLIENT_ID)
    return person


def _shown(endpoint: str) -> str:
    try:
        return origin_of(endpoint)[:128]
    except ValueError:
        return "the endpoint"
