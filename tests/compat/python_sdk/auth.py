"""Tokens: requests, callbacks, JWTs, expiry, re-authorisation in place."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ably.types.tokendetails import TokenDetails

from tests.compat.python_sdk.harness import (
    KEY_NAME,
    Stage,
    case,
    connected,
    heard,
    refused,
    token,
    unique,
    until,
)


def _details(claims: Mapping[str, Any] | None = None, lasting_s: float = 3600) -> TokenDetails:
    now = time.time()
    claims = claims or {}
    text = token(iat=now, exp=now + lasting_s, **claims)
    return TokenDetails(
        text,
        expires=int((now + lasting_s) * 1000),
        issued=int(now * 1000),
        client_id=claims.get("x-ably-clientId"),
    )


@case("auth: the key is exchanged for a token")
async def _(stage: Stage) -> None:
    rest = stage.rest("ann")
    await rest.channels.get(unique()).publish("n", "x")
    details = rest.auth.token_details
    assert details.expires > details.issued
    assert json.loads(str(details.capability)) == {"*": ["*"]}


@case("auth: a token request made by another party (authCallback)")
async def _(stage: Stage) -> None:
    signer = stage.rest()

    async def callback(params: Any) -> Any:
        return await signer.auth.create_token_request({"client_id": "ann", "capability": {"plain:*": ["*"]}})

    client = await connected(stage.realtime(auth_callback=callback))
    assert client.connection.connection_details.client_id == "ann"
    channel = client.channels.get(unique())
    messages = await heard(channel)
    await channel.publish("n", "x")
    await until("one", lambda: messages)
    assert messages[0].client_id == "ann"


@case("auth: a token request cannot be used twice (40105)")
async def _(stage: Stage) -> None:
    signer = stage.rest()
    request = await signer.auth.create_token_request({})
    body = request.to_dict()
    assert (await signer.request("POST", f"/keys/{KEY_NAME}/requestToken", version="3", body=body)).success
    again = await signer.request("POST", f"/keys/{KEY_NAME}/requestToken", version="3", body=body)
    assert (again.status_code, again.error_code) == (401, "40105")


@case("auth: JWT with clientId and capability")
async def _(stage: Stage) -> None:
    rights = json.dumps({"plain:*": ["subscribe", "publish"]})
    client = stage.realtime(token_details=_details({"x-ably-clientId": "ann", "x-ably-capability": rights}))
    channel = client.channels.get(unique())
    messages = await heard(channel)
    await channel.publish("n", "x")
    await until("one", lambda: messages)
    assert messages[0].client_id == "ann"
    async with refused(40160):
        await channel.history()


@case("auth: authorize() renews the token of an open connection")
async def _(stage: Stage) -> None:
    async def callback(params: Any) -> Any:
        return _details({"x-ably-clientId": "ann"})

    client = await connected(stage.realtime(auth_callback=callback))
    channel = client.channels.get(unique())
    messages = await heard(channel)
    before = client.connection.connection_manager.connection_id
    first = client.auth.token_details.token
    await client.auth.authorize()
    assert client.auth.token_details.token != first
    assert client.connection.connection_manager.connection_id == before
    await until("attached again", lambda: channel.state == "attached")
    await channel.publish("n", "x")
    await until("one", lambda: messages)


@case("auth: an expiring token is renewed and the channel goes on")
async def _(stage: Stage) -> None:
    issued: list[float] = []

    async def callback(params: Any) -> Any:
        issued.append(time.time())
        return _details(lasting_s=3.0 if len(issued) == 1 else 3600)

    client = await connected(stage.realtime(auth_callback=callback))
    name = unique()
    messages = await heard(client.channels.get(name))
    await until("renewed", lambda: len(issued) > 1)
    await until("connected", lambda: client.connection.state == "connected")
    await until("attached", lambda: client.channels.get(name).state == "attached")
    await stage.realtime().channels.get(name).publish("n", "after")
    await until("one", lambda: messages)


@case("auth: a forged JWT is refused and retried with a new token")
async def _(stage: Stage) -> None:
    asked: list[int] = []

    async def callback(params: Any) -> Any:
        asked.append(1)
        good = _details()
        return good if len(asked) > 1 else TokenDetails(good.token[:-4] + "AAAA", expires=good.expires)

    await connected(stage.realtime(auth_callback=callback))
    assert len(asked) == 2


@case("auth: REST renews an expired token by itself")
async def _(stage: Stage) -> None:
    asked: list[int] = []

    async def callback(params: Any) -> Any:
        asked.append(1)
        old = token(iat=time.time() - 100, exp=time.time() - 50)
        return TokenDetails(old, expires=int((time.time() + 50) * 1000)) if len(asked) == 1 else _details()

    rest = stage.rest(auth_callback=callback)
    await rest.channels.get(unique()).publish("n", "x")
    assert len(asked) == 2


@case("auth: no right at all, over REST (40160)")
async def _(stage: Stage) -> None:
    rest = stage.rest(token=token(**{"x-ably-capability": json.dumps({"other": ["publish"]})}))
    async with refused(40160):
        await rest.channels.get(unique()).publish("n", "x")
