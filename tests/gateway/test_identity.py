"""Identities that others vouch for: the host application's hook, proxies in front (AUT-2, AUT-12)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from starlette.testclient import TestClient
from websockets.asyncio.client import connect

from gateway import HostIdentity, RequestInfo, create_app
from gateway.auth.authenticator import Authenticator, now_ms
from gateway.auth.callers import Identify
from selfhost_transport.errors import TransportError, Unauthorized
from selfhost_transport.settings import KeyRule, ProxyRule, RedisSettings, Settings
from selfhost_transport.wire.codec import Format
from tests.gateway.raw import CONNECTED, ERROR, RawClient, client
from tests.gateway.tokens import token
from tests.processes import Stack

Names = Callable[[str], str]
SESSIONS = {"cookie-of-ann": "ann", "cookie-of-bob": "bob"}


async def by_cookie(info: RequestInfo) -> HostIdentity | None:
    """What an application would do with its own sessions: by cookie, or by a token that only it understands."""
    if info.token == "banned":
        raise Unauthorized("this account is closed")
    if info.token == "broken":
        raise KeyError("a bug of the application")
    user = SESSIONS.get(info.headers.get("cookie", "").removeprefix("session=")) or SESSIONS.get(
        info.token or ""
    )
    if user is None:
        return None
    rights = {f"conversations:{user}:*": ["*"]}
    return HostIdentity(user, rights, expires_ms=now_ms() + 60_000, application="shop")


@contextmanager
def hosted(redis_url: str, redis_prefix: str, identify: Identify = by_cookie) -> Iterator[TestClient]:
    key = KeyRule.model_validate({"name": "app.key", "secret": "secret"})
    settings = Settings(redis=RedisSettings(url=redis_url, prefix=redis_prefix), keys=(key,))
    with TestClient(create_app(settings, identify)) as http:
        yield http


def test_the_host_says_who_is_calling(redis_url: str, redis_prefix: str) -> None:
    with hosted(redis_url, redis_prefix) as http:
        cookie = {"Cookie": "session=cookie-of-ann"}
        me = http.get("/v1/me", headers=cookie).json()
        assert (me["clientId"], me["application"]) == ("ann", "shop")
        assert me["capability"] == {"conversations:ann:*": ["*"]}
        assert (
            http.get("/v1/me", headers={"Authorization": "Bearer cookie-of-bob"}).json()["clientId"] == "bob"
        )
        path = "/channels/conversations:bob:1/messages"
        assert http.post(path, headers=cookie, json={"data": "x"}).json()["error"]["code"] == 40160
        with http.websocket_connect("/?access_token=cookie-of-ann") as websocket:
            assert websocket.receive_json()["connectionDetails"]["clientId"] == "ann"
            # The same hook hears of the tokens that come in-band.
            websocket.send_json({"action": 17, "auth": {"accessToken": "cookie-of-ann"}})
            assert websocket.receive_json()["action"] == CONNECTED
            websocket.send_json({"action": 17, "auth": {"accessToken": "cookie-of-bob"}})
            refused = websocket.receive_json()
            assert (refused["action"], refused["error"]["code"]) == (ERROR, 40102)


def test_whom_the_host_does_not_know_keys_and_tokens_decide_about(redis_url: str, redis_prefix: str) -> None:
    with hosted(redis_url, redis_prefix) as http:
        assert http.get("/v1/me", auth=("app.key", "secret")).json()["clientId"] == "*"
        assert http.get("/v1/me").json()["error"]["code"] == 40101


def test_a_hook_may_refuse_and_its_bugs_are_not_the_clients(redis_url: str, redis_prefix: str) -> None:
    with hosted(redis_url, redis_prefix) as http:
        refused = http.get("/v1/me", headers={"Authorization": "Bearer banned"})
        assert (refused.status_code, refused.json()["error"]["message"]) == (401, "this account is closed")
        with http.websocket_connect("/?access_token=banned") as websocket:
            assert websocket.receive_json()["error"]["code"] == 40101
        assert http.get("/v1/me", headers={"Authorization": "Bearer broken"}).status_code == 500
        with http.websocket_connect("/?access_token=broken") as websocket:
            # To be tried again: never ERROR, which would be final, and never with a status of 5xx.
            asked = websocket.receive_json()
            assert (asked["action"], asked["error"]["code"], asked["error"]["statusCode"]) == (6, 80003, 400)


PROXY = ProxyRule.model_validate({"addresses": ["10.1.0.0/16", "127.0.0.1"], "header": "X-Forwarded-User"})


@pytest.mark.parametrize(
    ("peer", "header", "query", "client_id"),
    [
        ("10.1.2.3", "ann", {}, "ann"),
        ("127.0.0.1", "ann", {"clientId": "ann"}, "ann"),
        ("10.2.2.3", "ann", {}, None),
        (None, "ann", {}, None),
        ("10.1.2.3", "", {}, None),
        ("10.1.2.3", "*", {}, None),
        ("10.1.2.3", "ann", {"clientId": "bob"}, None),
    ],
)
async def test_a_proxys_word_counts_only_from_its_address(
    peer: str | None, header: str, query: dict[str, str], client_id: str | None
) -> None:
    info = RequestInfo("/", {"x-forwarded-user": header}, query, peer, "192.0.2.7")
    authenticator = Authenticator(Settings(trusted_proxies=(PROXY,)))
    if client_id is None:
        with pytest.raises(TransportError):
            await authenticator.of_connection(info)
    else:
        found = await authenticator.of_connection(info)
        assert found.identity.client_id == client_id
        assert not found.capability.allows("message-update-any", "x")


TRUSTING = """
[[keys]]
name = "app.key"
secret = "secret"

[[trusted_proxies]]
addresses = ["127.0.0.1"]
header = "X-Forwarded-User"
capability = { "mine:*" = ["subscribe"] }
"""


async def test_behind_a_proxy_that_also_passes_the_clients_address(stack: Stack) -> None:
    url = (await stack.gateway(config=TRUSTING)).url
    headers = {"X-Forwarded-User": "ann", "X-Forwarded-For": "198.51.100.9"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:
        me = (await http.get("/v1/me")).json()
        assert (me["clientId"], me["capability"]) == ("ann", {"mine:*": ["subscribe"]})


async def test_aut_12_the_development_key_needs_dev_and_this_machine(stack: Stack) -> None:
    key = ("dev.local", "development-secret")
    dev = (await stack.gateway(env={"SELFHOST_TRANSPORT_DEV": "1"})).url
    production = (await stack.gateway()).url
    async with httpx.AsyncClient(auth=key) as http:
        assert (await http.get(f"{dev}/v1/me")).status_code == 200
        assert (await http.get(f"{production}/v1/me")).json()["error"]["code"] in (40101, 40400)
        assert (await http.get(f"{production}/config.json")).status_code == 404
        # Of someone elsewhere, for whom a proxy on this machine speaks.
        elsewhere = {"X-Forwarded-For": "198.51.100.9"}
        assert (await http.get(f"{dev}/v1/me", headers=elsewhere)).json()["error"]["code"] == 40101
        assert (await http.get(f"{dev}/config.json", headers=elsewhere)).status_code == 404
    async with client(production, key="dev.local:development-secret") as raw:
        assert (await raw.action(ERROR))["error"]["code"] == 40101


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
async def test_a_websocket_may_give_its_credentials_in_a_header(stack: Stack, scheme: str) -> None:
    """Out of the query, no log of any proxy has them."""
    url = (await stack.gateway(config=TRUSTING)).url
    secret = base64.b64encode(b"app.key:secret").decode() if scheme == "Basic" else token(client_id="bob")
    address = url.replace("http://", "ws://") + "/?v=6&format=json&clientId=bob"
    for value, action in ((secret, CONNECTED), (secret[:-4] + "AAAA", ERROR)):
        headers = {"Authorization": f"{scheme} {value}"}
        async with connect(address, additional_headers=headers, compression=None) as websocket:
            assert (await RawClient(websocket, Format.JSON).next())["action"] == action


def test_an_identity_with_a_right_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no operation 'pubish'; did you mean 'publish'"):
        HostIdentity("ann", {"chat:*": ["subscribe", "pubish"]})
