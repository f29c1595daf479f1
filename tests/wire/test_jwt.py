"""Ably-style JWTs, ours, those of the recordings, and those of an identity provider (protocol section 10.4)."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from selfhost_transport.errors import TokenError, Unauthorized
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.jwt import (
    CLOCK_AHEAD_MS,
    Algorithm,
    TokenClaims,
    issue_token,
    token_key_name,
    verify_token,
)
from tests.wire.recordings import SECRET, events

NOW = 1_763_000_000_000
CLAIMS = TokenClaims(
    "app.key", NOW, NOW + 60_000, Capability.parse('{"a": ["publish"]}'), "me", "rk", "nonce-1"
)
LONG_SECRET = "a-secret-of-at-least-thirty-two-bytes"


def sign(payload: dict[str, Any], *, kid: str | None = "app.key", secret: str = LONG_SECRET) -> str:
    return jwt.encode(payload, secret, algorithm="HS256", headers={"kid": kid} if kid else None)


def test_tokens_of_the_recordings() -> None:
    tokens = [
        event["query"].get("access_token") or event["query"]["accessToken"]
        for name, _, event in events("ws-open")
        if name.endswith("auth-jwt")
    ]
    assert len(tokens) > 6
    for token in tokens:
        # Some were made to be expired, with an exp before their iat.
        if jwt.decode(token, options={"verify_signature": False})["exp"] < 1795360000:
            with pytest.raises(TokenError):
                verify_token(token, SECRET, now_ms=1795359600_000)
            continue
        assert token_key_name(token) == "app1.key1"
        claims = verify_token(token, SECRET, now_ms=1795359600_000)
        assert (claims.client_id, claims.capability) == ("jwt-user", Capability.FULL)


def test_issued_tokens_verify_and_say_the_same() -> None:
    claims = verify_token(issue_token(CLAIMS, "short"), "short", now_ms=NOW)
    assert claims == CLAIMS
    assert claims.capability is not None
    assert claims.capability.text == '{"a": ["publish"]}'


def test_claims_by_channel_pattern() -> None:
    claims = TokenClaims(
        "app.key", NOW, NOW + 1,
        user_claims={"*": "any", "a:*": "some", "a:b": "one", "[meta]a": "no"}, publish_rates={"a:*": 2.5},
    )  # fmt: skip
    claims = verify_token(issue_token(claims, "s"), "s", now_ms=NOW)
    assert [claims.user_claim(channel) for channel in ("x", "a:x", "a:b")] == ["any", "some", "one"]
    assert (claims.publish_rate("a:1"), claims.publish_rate("b")) == (2.5, None)


def test_expiry_has_fractions_and_no_grace() -> None:
    token = issue_token(TokenClaims("app.key", NOW, NOW + 1), "s")
    assert verify_token(token, "s", now_ms=NOW).expires_ms == NOW + 1
    with pytest.raises(TokenError) as caught:
        verify_token(token, "s", now_ms=NOW + 1)
    assert (caught.value.info.code, caught.value.info.status_code) == (40142, 401)


def test_issued_slightly_ahead_is_accepted() -> None:
    token = issue_token(CLAIMS, "s")
    verify_token(token, "s", now_ms=NOW - CLOCK_AHEAD_MS)
    with pytest.raises(TokenError, match="not valid yet"):
        verify_token(token, "s", now_ms=NOW - CLOCK_AHEAD_MS - 1)


SECONDS = NOW // 1000
GOOD: dict[str, Any] = {"iat": SECONDS, "exp": SECONDS + 60}


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"iat": SECONDS},
        {"exp": SECONDS + 60},
        {"iat": SECONDS, "exp": SECONDS},
        {"iat": "x", "exp": SECONDS + 60},
        {"iat": SECONDS, "exp": True},
        {"iat": SECONDS, "exp": 1e300},
        {**GOOD, "nbf": SECONDS + 3600},
        {**GOOD, "x-ably-capability": "not json"},
        {**GOOD, "x-ably-capability": 5},
        {**GOOD, "x-ably-clientId": 5},
        {**GOOD, "x-ably-clientId": ""},
        {**GOOD, "jti": 5},
    ],
)
def test_malformed_claims(payload: dict[str, Any]) -> None:
    with pytest.raises(TokenError) as caught:
        verify_token(sign(payload), LONG_SECRET, now_ms=NOW)
    assert (caught.value.info.code, caught.value.info.status_code) == (40144, 401)


def test_wrong_signature_missing_kid_and_other_algorithms() -> None:
    good = sign(GOOD)
    tampered = good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB")
    unsigned = jwt.encode(GOOD, "", algorithm="none", headers={"kid": "app.key"})
    stronger = jwt.encode(GOOD, LONG_SECRET * 2, algorithm="HS512", headers={"kid": "app.key"})
    for token, secret in (
        (good, "other"),
        (tampered, LONG_SECRET),
        (unsigned, LONG_SECRET),
        (stronger, LONG_SECRET * 2),
    ):
        with pytest.raises(TokenError) as caught:
            verify_token(token, secret, now_ms=NOW)
        assert caught.value.info.code == 40144
    with pytest.raises(TokenError, match="kid"):
        verify_token(sign(GOOD, kid=None), LONG_SECRET, now_ms=NOW)
    assert (
        verify_token(sign(GOOD, kid=None), LONG_SECRET, now_ms=NOW, key_name="app.key").key_name == "app.key"
    )


@pytest.mark.parametrize(
    ("token", "error", "code"),
    [
        ("", Unauthorized, 40101),
        ("not a token", Unauthorized, 40101),
        ("app.key:secret", Unauthorized, 40101),
        ("app.opaque-token", TokenError, 40143),
        ("a.b.c", TokenError, 40144),
        ("e30.e30.e30", TokenError, 40144),
        ("bnVsbA.e30.e30", TokenError, 40144),
        ("." * 3, Unauthorized, 40101),
    ],
)
def test_what_is_not_a_jwt(token: str, error: type[Unauthorized] | type[TokenError], code: int) -> None:
    with pytest.raises(error) as caught:
        token_key_name(token)
    assert caught.value.info.code == code


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_public_keys_of_identity_providers(algorithm: Algorithm) -> None:
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if algorithm == "RS256":
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    token = jwt.encode({**GOOD, "x-ably-clientId": "me"}, pem, algorithm=algorithm, headers={"kid": "idp-1"})
    claims = verify_token(token, public, now_ms=NOW, algorithm=algorithm, key_name="app.key")
    assert (claims.client_id, claims.key_name) == ("me", "app.key")
    # The public key must not become an HMAC secret because the token says so.
    with pytest.raises(TokenError):
        verify_token(token, public, now_ms=NOW, algorithm="HS256")
