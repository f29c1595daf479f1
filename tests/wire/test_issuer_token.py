"""Tokens of an identity provider: who signed them, for whom, and what their claims become."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from selfhost_transport.errors import TokenError
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.issuer_token import ClaimRules, Unverified, peek, verify_issuer_token

NOW = 1_763_000_000_000
ISSUER = "https://login.example"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


CLAIMS = {"iss": ISSUER, "sub": "alice", "iat": NOW // 1000, "exp": NOW // 1000 + 60}
RULES = ClaimRules(ISSUER)


def sign(claims: dict[str, Any], **headers: Any) -> str:
    return jwt.encode(claims, KEY, algorithm="RS256", headers=headers or None)


def verify(claims: dict[str, Any], rules: ClaimRules = RULES) -> Any:
    return verify_issuer_token(sign(claims), public(KEY), rules, algorithm="RS256", now_ms=NOW)


def test_what_a_token_says_of_itself() -> None:
    assert peek(sign(CLAIMS, kid="k1")) == Unverified(ISSUER, "RS256", "k1")
    assert peek(sign(CLAIMS)) == Unverified(ISSUER, "RS256", None)


@pytest.mark.parametrize(
    "token", ["", "a.b.c", "no token", sign({"sub": "alice"}), sign({"iss": ISSUER}) + "é"]
)
def test_a_token_without_a_readable_issuer_names_none(token: str) -> None:
    assert peek(token) is None


def test_a_key_id_that_is_no_text_is_none() -> None:
    header = jwt.utils.base64url_encode(b'{"alg":"RS256","typ":"JWT","kid":7}').decode()
    found = peek(".".join([header, *sign(CLAIMS).split(".")[1:]]))
    assert found is None or found.key_id is None


def test_the_subject_is_the_client_and_other_claims_do_not_count() -> None:
    found = verify({**CLAIMS, "jti": "once", "x-ably-clientId": "eve", "x-ably-capability": '{"*":["*"]}'})
    assert (found.client_id, found.token_id, found.capability) == ("alice", "once", None)


def test_a_named_claim_is_the_client() -> None:
    assert verify({**CLAIMS, "email": "a@b.c"}, ClaimRules(ISSUER, client_id="email")).client_id == "a@b.c"


@pytest.mark.parametrize(
    ("rights", "capability"),
    [
        ('{"a": ["publish"]}', Capability.parse('{"a": ["publish"]}')),
        ({"a": ["publish"]}, Capability.parse('{"a": ["publish"]}')),
        # A forgotten claim permits nothing.
        (None, Capability.parse("{}")),
    ],
)
def test_a_claim_narrows_the_rights(rights: object, capability: Capability) -> None:
    claims = CLAIMS if rights is None else {**CLAIMS, "rights": rights}
    assert verify(claims, ClaimRules(ISSUER, capability="rights")).capability == capability


def test_the_audience_is_one_of_those_given() -> None:
    rules = ClaimRules(ISSUER, audience="chat")
    assert verify({**CLAIMS, "aud": ["mail", "chat"]}, rules).client_id == "alice"
    assert verify({**CLAIMS, "aud": "chat"}, rules).client_id == "alice"
    for other in ({**CLAIMS, "aud": ["mail"]}, {**CLAIMS, "aud": "chatter"}, CLAIMS):
        with pytest.raises(TokenError, match="another audience"):
            verify(other, rules)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({**CLAIMS, "iss": "https://else.example"}, "issuer does not match"),
        ({**CLAIMS, "sub": "*"}, "may not be '\\*'"),
        ({**CLAIMS, "iat": NOW // 1000 - 120, "exp": NOW // 1000 - 60}, "expired"),
    ],
)
def test_a_token_that_is_refused(claims: dict[str, Any], why: str) -> None:
    with pytest.raises(TokenError, match=why):
        verify(claims)


def test_another_key_or_algorithm_is_refused() -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for key, algorithm in ((other, "RS256"), (KEY, "ES256")):
        with pytest.raises(TokenError):
            verify_issuer_token(sign(CLAIMS), public(key), RULES, algorithm=algorithm, now_ms=NOW)


def test_a_payload_that_is_no_map_is_refused() -> None:
    token = jwt.api_jws.PyJWS().encode(b"[1]", KEY, algorithm="RS256")
    assert peek(token) is None
    with pytest.raises(TokenError, match="issuer does not match"):
        verify_issuer_token(token, public(KEY), RULES, algorithm="RS256", now_ms=NOW)
