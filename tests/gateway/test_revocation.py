"""Revoked tokens: refused everywhere, and live connections end (AUT-7, protocol section 10.7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.auth.authenticator import REVOCABLE_TTL_MS, now_ms
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.revocations import Revocation, RevocationStore, TargetKind
from tests.gateway.raw import ATTACHED, CONFIG, CONNECTED, DISCONNECTED, ERROR, client
from tests.gateway.tokens import token
from tests.processes import Stack, wait_until
from tests.promptness import Stopwatch, prompt

pytestmark = pytest.mark.asyncio(loop_scope="module")

REVOCABLE = (
    CONFIG
    + """
[[keys]]
name = "app.revocable"
secret = "revocable"
revocable_tokens = true
"""
)
NAME = "app.revocable"
KEY = (NAME, "revocable")
PATH = f"/keys/{NAME}/revokeTokens"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def urls(site: Stack) -> list[str]:
    """Two gateways."""
    return [(await site.gateway(config=REVOCABLE)).url for _ in range(2)]


@pytest_asyncio.fixture(loop_scope="module")
async def http(urls: list[str]) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=urls[0], auth=KEY) as opened:
        yield opened


def revocable(client_id: str, **claims: Any) -> str:
    return token(*KEY, client_id=client_id, **{"life_ms": 600_000, **claims})


async def refusal(url: str, text: str) -> int | None:
    """The code with which a request and a connection are refused; None if they are not."""
    async with httpx.AsyncClient(base_url=url, params={"access_token": text}) as other:
        answer = await other.get("/v1/me")
    async with client(url, key="", access_token=text) as raw:
        frame = await raw.action(CONNECTED, ERROR)
    code = frame.get("error", {}).get("code")
    assert (answer.status_code == 200) is (code is None)
    return int(code) if code else None


@prompt
async def test_aut_7_connections_of_a_client_end_within_two_seconds(
    urls: list[str], http: httpx.AsyncClient
) -> None:
    text = revocable("eve")
    async with (
        client(urls[0], key="", access_token=text) as here,
        client(urls[1], key="", access_token=revocable("eve")) as there,
        client(urls[1], key="", access_token=revocable("ann")) as other,
    ):
        for raw in (here, there, other):
            assert (await raw.action(CONNECTED))["action"] == CONNECTED
        watch = Stopwatch()
        answer = await http.post(PATH, json={"targets": ["clientId:eve"]})
        assert answer.status_code == 201
        assert (answer.json()["successCount"], answer.json()["failureCount"]) == (1, 0)
        assert answer.json()["results"][0]["target"] == "clientId:eve"
        for raw in (here, there):
            ended = await raw.action(DISCONNECTED)
            assert (ended["error"]["code"], ended["error"]["statusCode"]) == (40141, 401)
            await raw.closed()
        watch.assert_below(2)
        assert (await other.attach("plain:after"))["action"] == ATTACHED
    for url in urls:
        assert await refusal(url, text) == 40141
        assert await refusal(url, revocable("ann")) is None
    # What was issued afterwards is good.
    assert await refusal(urls[1], revocable("eve", age_ms=0)) is None


async def test_by_revocation_key_and_by_channel(urls: list[str], http: httpx.AsyncClient) -> None:
    grouped = revocable("a", revocation_key="group-1")
    named = revocable("b", rights='{"plain:x":["subscribe"]}')
    wide = revocable("c", rights='{"plain:*":["subscribe"]}')
    answer = await http.post(PATH, json={"targets": ["revocationKey:group-1", "channel:plain:x"]})
    assert answer.json()["successCount"] == 2
    await wait_until(lambda: refusal_is(urls[1], grouped, 40141))
    assert await refusal(urls[1], named) == 40141
    assert await refusal(urls[1], wide) is None


async def refusal_is(url: str, text: str, code: int) -> bool:
    return await refusal(url, text) == code


async def test_tokens_issued_later_stay_good(urls: list[str], http: httpx.AsyncClient) -> None:
    old, young = revocable("dan", age_ms=10_000), revocable("dan", age_ms=1000)
    answer = await http.post(PATH, json={"targets": ["clientId:dan"], "issuedBefore": now_ms() - 5000})
    assert answer.status_code == 201
    await wait_until(lambda: refusal_is(urls[1], old, 40141))
    assert await refusal(urls[1], young) is None


@pytest.mark.parametrize(
    ("path", "credentials", "body", "code"),
    [
        (PATH, None, {"targets": ["clientId:x"]}, 40162),
        (PATH, "token", {"targets": ["clientId:x"]}, 40162),
        (PATH, ("app.key", "secret"), {"targets": ["clientId:x"]}, 40133),
        ("/keys/app.key/revokeTokens", ("app.key", "secret"), {"targets": ["clientId:x"]}, 40163),
        (PATH, (NAME, "wrong"), {"targets": ["clientId:x"]}, 40101),
        (PATH, KEY, {"targets": []}, 40000),
        (PATH, KEY, {"targets": ["clientId:x"] * 101}, 40000),
        (PATH, KEY, {"targets": "clientId:x"}, 40001),
        (PATH, KEY, {"targets": ["clientId:x"], "issuedBefore": 2**50}, 40003),
    ],
)
async def test_who_may_revoke_and_what(
    urls: list[str], path: str, credentials: Any, body: Any, code: int
) -> None:
    headers = {"Authorization": f"Bearer {revocable('x')}"} if credentials == "token" else {}
    auth = credentials if isinstance(credentials, tuple) else None
    async with httpx.AsyncClient(base_url=urls[0], auth=auth, headers=headers) as asking:
        answer = await asking.post(path, json=body)
    assert answer.json()["error"]["code"] == code


async def test_an_unknown_target_fails_alone(http: httpx.AsyncClient) -> None:
    answer = (await http.post(PATH, json={"targets": ["clientId:no-one", "planet:mars", "clientId:"]})).json()
    assert (answer["successCount"], answer["failureCount"]) == (1, 2)
    assert [result.get("error", {}).get("statusCode") for result in answer["results"]] == [None, 400, 400]


@prompt
async def test_with_a_margin_clients_are_asked_first(urls: list[str], http: httpx.AsyncClient) -> None:
    async with (
        client(urls[1], key="", access_token=revocable("margin")) as renews,
        client(urls[1], key="", access_token=revocable("margin")) as stays,
    ):
        await renews.action(CONNECTED)
        await stays.action(CONNECTED)
        watch = Stopwatch()
        body = {"targets": ["clientId:margin"], "allowReauthMargin": True}
        result = (await http.post(PATH, json=body)).json()["results"][0]
        assert result["appliesAt"] - result["issuedBefore"] == 30_000
        for raw in (renews, stays):
            assert (await raw.action(17, DISCONNECTED))["action"] == 17
        watch.assert_below(2)
        await renews.send({"action": 17, "auth": {"accessToken": revocable("margin", age_ms=0)}})
        await renews.action(CONNECTED)


async def test_when_the_margin_is_over_who_did_not_renew_is_cut(site: Stack, urls: list[str]) -> None:
    redis = RedisConnection(site.redis_url)
    store = RevocationStore(redis, site.redis_prefix)
    try:
        async with (
            client(urls[0], key="", access_token=revocable("late")) as renews,
            client(urls[1], key="", access_token=revocable("late")) as stays,
        ):
            await renews.action(CONNECTED)
            await stays.action(CONNECTED)
            now = now_ms()
            await store.add([Revocation(NAME, TargetKind.CLIENT_ID, "late", now, now + 700)])
            for raw in (renews, stays):
                await raw.action(17)
            await renews.send({"action": 17, "auth": {"accessToken": revocable("late", age_ms=-1)}})
            await renews.action(CONNECTED)
            assert (await stays.action(DISCONNECTED))["error"]["code"] == 40141
            assert now_ms() - now >= 700
            assert (await renews.attach("plain:after"))["action"] == ATTACHED
    finally:
        await redis.close()


async def test_a_gateway_that_starts_later_knows(site: Stack, http: httpx.AsyncClient) -> None:
    text = revocable("gone")
    await http.post(PATH, json={"targets": ["clientId:gone"]})
    assert await refusal((await site.gateway(config=REVOCABLE)).url, text) == 40141


async def test_such_tokens_live_an_hour_at_most(urls: list[str], http: httpx.AsyncClient) -> None:
    assert await refusal(urls[0], revocable("x", life_ms=REVOCABLE_TTL_MS + 1000)) == 40144
    path = f"/keys/{NAME}/requestToken"
    assert (await http.post(path, json={"keyName": NAME, "ttl": REVOCABLE_TTL_MS + 1})).status_code == 400
    details = (await http.post(path, json={"keyName": NAME})).json()
    assert details["expires"] - details["issued"] == REVOCABLE_TTL_MS


async def test_an_event_stream_ends_with_its_token(urls: list[str]) -> None:
    params = {"access_token": revocable("reader", life_ms=1200)}
    async with (
        httpx.AsyncClient(base_url=urls[0], params=params, timeout=10) as reader,
        reader.stream("GET", "/v1/sessions/plain:stream/events") as response,
        asyncio.timeout(5),
    ):
        lines = [line async for line in response.aiter_lines()]
    assert lines[0] == "event: attached"
    assert "event: error" in lines
    assert any('"code":40142' in line for line in lines)
