"""Credentials: keys, tokens, the development key, identity (protocol section 10)."""

from __future__ import annotations

import base64
from urllib.parse import urlencode

import pytest
from starlette.requests import HTTPConnection

from gateway.auth.authenticator import Authenticator, Credential, now_ms
from gateway.auth.callers import RequestInfo
from gateway.auth.origins import is_loopback
from selfhost_transport.errors import TransportError
from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET, GatewaySettings, KeyRule, Settings
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.jwt import TokenClaims, issue_token

SETTINGS = Settings(
    keys=(
        KeyRule.model_validate({"name": "app.full", "secret": "s1"}),
        KeyRule.model_validate({"name": "app.part", "secret": "s2", "capability": {"a:*": ["publish"]}}),
    )
)
AUTH = Authenticator(SETTINGS)


def token(key: str = "app.part", secret: str = "s2", life_ms: int = 86_400_000, **claims: object) -> str:
    now = now_ms()
    fields = {"key_name": key, "issued_ms": now - 1000, "expires_ms": now + life_ms, **claims}
    return issue_token(TokenClaims(**fields), secret)  # type: ignore[arg-type]


def info(
    query: dict[str, str], headers: dict[str, str] | None = None, client: str = "127.0.0.1"
) -> RequestInfo:
    scope = {
        "type": "http",
        "path": "/",
        "query_string": urlencode(query).encode(),
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": (client, 1),
        "server": ("gateway", 80),
        "scheme": "http",
    }
    return RequestInfo.of(HTTPConnection(scope))


async def by_query(query: dict[str, str], *, auth: Authenticator = AUTH, loopback: bool = True) -> Credential:
    return await auth.of_connection(info(query, client="127.0.0.1" if loopback else "192.0.2.1"))


async def by_headers(headers: dict[str, str]) -> Credential:
    return await AUTH.of_request(info({}, headers))


async def code_of(query: dict[str, str], *, auth: Authenticator = AUTH, loopback: bool = True) -> int:
    with pytest.raises(TransportError) as refused:
        await by_query(query, auth=auth, loopback=loopback)
    return refused.value.info.code


@pytest.mark.parametrize(
    ("query", "announced"),
    [
        ({"key": "app.full:s1"}, "*"),
        ({"key": "app.full:s1", "clientId": "x"}, "x"),
        ({"access_token": token()}, None),
        ({"accessToken": token(client_id="x")}, "x"),
        ({"access_token": token(client_id="*")}, "*"),
        ({"access_token": token(client_id="*"), "clientId": "x"}, "x"),
    ],
)
async def test_identity(query: dict[str, str], announced: str | None) -> None:
    assert (await by_query(query)).identity.announced == announced


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({}, 40101),
        ({"key": "nonsense"}, 40101),
        ({"key": "app.full:wrong"}, 40101),
        ({"key": "app.none:s1"}, 40101),
        ({"access_token": "no token at all"}, 40101),
        ({"access_token": token(secret="wrong")}, 40144),
        ({"access_token": token(key="app.none")}, 40101),
        ({"access_token": token(life_ms=-1)}, 40142),
        ({"access_token": token(client_id="x"), "clientId": "y"}, 40102),
        ({"access_token": token(), "clientId": "y"}, 40102),
    ],
)
async def test_refusals(query: dict[str, str], code: int) -> None:
    assert await code_of(query) == code


async def test_a_token_never_has_more_rights_than_its_key() -> None:
    wide = token(capability=Capability.parse('{"a:1":["publish","subscribe"],"b":["publish"]}'))
    granted = (await by_query({"access_token": wide})).capability
    assert granted.allows("publish", "a:1")
    assert not granted.allows("subscribe", "a:1")
    assert not granted.allows("publish", "b")
    assert not granted.allows("publish", "a:2")


async def test_headers() -> None:
    basic = base64.b64encode(b"app.full:s1").decode()
    client = base64.b64encode(b"server 1").decode()
    headers = {"authorization": f"Basic {basic}", "x-ably-clientid": client}
    assert (await by_headers(headers)).identity.client_id == "server 1"
    for value in (token(), base64.b64encode(token().encode()).decode()):
        found = await by_headers({"authorization": f"Bearer {value}"})
        assert found.key_name == "app.part"
    with pytest.raises(TransportError):
        await by_headers({"authorization": "Digest x"})


async def test_the_development_key_is_for_this_machine_and_for_dev_only() -> None:
    key = {"key": f"{DEV_KEY_NAME}:{DEV_KEY_SECRET}"}
    dev = Authenticator(Settings(gateway=GatewaySettings(dev=True)))
    assert (await by_query(key, auth=dev)).capability == Capability.FULL
    assert await code_of(key, auth=dev, loopback=False) == 40101
    local_token = {"access_token": token(DEV_KEY_NAME, DEV_KEY_SECRET)}
    assert (await by_query(local_token, auth=dev)).key_name == DEV_KEY_NAME
    assert await code_of(local_token, auth=dev, loopback=False) == 40101
    assert await code_of(key, auth=Authenticator(Settings())) == 40101


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), (None, True), ("10.0.0.1", False), ("example.com", False)],
)
def test_loopback(host: str | None, expected: bool) -> None:
    assert is_loopback(host) is expected
