"""Credentials: keys, tokens, the development key, identity (protocol section 10)."""

from __future__ import annotations

import base64

import pytest

from gateway.auth import Authenticator, is_loopback, now_ms
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


def token(key: str = "app.part", secret: str = "s2", life_ms: int = 60_000, **claims: object) -> str:
    now = now_ms()
    fields = {"key_name": key, "issued_ms": now - 1000, "expires_ms": now + life_ms, **claims}
    return issue_token(TokenClaims(**fields), secret)  # type: ignore[arg-type]


def code_of(query: dict[str, str], *, auth: Authenticator = AUTH, loopback: bool = True) -> int:
    with pytest.raises(TransportError) as refused:
        auth.from_query(query, loopback=loopback)
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
def test_identity(query: dict[str, str], announced: str | None) -> None:
    assert AUTH.from_query(query, loopback=True).identity.announced == announced


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({}, 40101),
        ({"key": "nonsense"}, 40005),
        ({"key": "app.full:wrong"}, 40101),
        ({"key": "app.none:s1"}, 40101),
        ({"access_token": "no token at all"}, 40005),
        ({"access_token": token(secret="wrong")}, 40144),
        ({"access_token": token(key="app.none")}, 40101),
        ({"access_token": token(life_ms=-1)}, 40142),
        ({"access_token": token(client_id="x"), "clientId": "y"}, 40102),
        ({"access_token": token(), "clientId": "y"}, 40102),
    ],
)
def test_refusals(query: dict[str, str], code: int) -> None:
    assert code_of(query) == code


def test_a_token_never_has_more_rights_than_its_key() -> None:
    wide = token(capability=Capability.parse('{"a:1":["publish","subscribe"],"b":["publish"]}'))
    granted = AUTH.from_query({"access_token": wide}, loopback=True).capability
    assert granted.allows("publish", "a:1")
    assert not granted.allows("subscribe", "a:1")
    assert not granted.allows("publish", "b")
    assert not granted.allows("publish", "a:2")


def test_headers() -> None:
    basic = base64.b64encode(b"app.full:s1").decode()
    client = base64.b64encode(b"server 1").decode()
    headers = {"authorization": f"Basic {basic}", "x-ably-clientid": client}
    assert AUTH.from_headers(headers, {}, loopback=True).identity.client_id == "server 1"
    for value in (token(), base64.b64encode(token().encode()).decode()):
        found = AUTH.from_headers({"authorization": f"Bearer {value}"}, {}, loopback=True)
        assert found.key_name == "app.part"
    with pytest.raises(TransportError):
        AUTH.from_headers({"authorization": "Digest x"}, {}, loopback=True)


def test_the_development_key_is_for_this_machine_and_for_dev_only() -> None:
    key = {"key": f"{DEV_KEY_NAME}:{DEV_KEY_SECRET}"}
    dev = Authenticator(Settings(gateway=GatewaySettings(dev=True)))
    assert dev.from_query(key, loopback=True).capability == Capability.FULL
    assert code_of(key, auth=dev, loopback=False) == 40101
    local_token = {"access_token": token(DEV_KEY_NAME, DEV_KEY_SECRET)}
    assert dev.from_query(local_token, loopback=True).key_name == DEV_KEY_NAME
    assert code_of(local_token, auth=dev, loopback=False) == 40101
    assert code_of(key, auth=Authenticator(Settings())) == 40101


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), (None, True), ("10.0.0.1", False), ("example.com", False)],
)
def test_loopback(host: str | None, expected: bool) -> None:
    assert is_loopback(host) is expected
