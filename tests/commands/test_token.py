"""`token`: a JWT that the gateway accepts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from selfhost_transport.errors import BadRequest, InvalidArgument
from selfhost_transport.wire.jwt import token_key_name, verify_token
from tests.commands.conftest import Call

KEYS = '[[keys]]\nname = "app.one"\nsecret = "first"\n[[keys]]\nname = "app.two"\nsecret = "second"\n'


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.toml"
    path.write_text(KEYS)
    return str(path)


def test_a_token_carries_what_was_asked_for(call: Call, config: str) -> None:
    options = ("--client-id", "alice", "--ttl", "30m", "--capability", '{"chat:*": ["subscribe"]}')
    token = call("token", "--config", config, "--key", "app.two", *options).output.strip()
    now_ms = int(time.time() * 1000)
    assert token_key_name(token) == "app.two"
    claims = verify_token(token, "second", now_ms=now_ms)
    assert claims.client_id == "alice" and claims.capability is not None
    assert abs(claims.expires_ms - now_ms - 30 * 60_000) < 10_000


def test_the_first_key_signs_unless_another_is_named(call: Call, config: str) -> None:
    token = call("token", "--config", config).output.strip()
    assert verify_token(token, "first", now_ms=int(time.time() * 1000)).key_name == "app.one"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--key", "app.three"), "there is no key 'app.three'; configured are app.one, app.two"),
        (("--ttl", "soon"), "--ttl: a duration is"),
        (("--ttl", "0"), "--ttl: a token needs a lifetime above 0"),
    ],
)
def test_mistakes_are_explained(call: Call, config: str, options: tuple[str, ...], complaint: str) -> None:
    error = call("token", "--config", config, *options).exception
    assert isinstance(error, InvalidArgument) and complaint in str(error)


def test_a_bad_capability_is_refused(call: Call, config: str) -> None:
    assert isinstance(call("token", "--config", config, "--capability", "[]").exception, BadRequest)


def test_without_a_key_there_is_no_token(call: Call) -> None:
    error = call("token").exception
    assert isinstance(error, InvalidArgument) and "no key is configured" in str(error)


def test_dev_has_a_key_of_its_own(call: Call, config: str) -> None:
    token = call("token", "--dev", "--client-id", "alice").output.strip()
    claims = verify_token(token, "development-secret", now_ms=int(time.time() * 1000))
    assert (token_key_name(token), claims.client_id) == ("dev.local", "alice")
    configured = call("token", "--dev", "--config", config).output.strip()
    assert token_key_name(configured) == "app.one"
