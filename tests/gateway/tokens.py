"""Tokens for tests: of API keys, and of an identity provider with keys of its own."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from gateway.auth.authenticator import now_ms
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.jwt import TokenClaims, issue_token

ISSUER = "https://login.example.com/"


def token(
    name: str = "app.key",
    secret: str = "secret",
    *,
    rights: str | None = None,
    life_ms: int = 86_400_000,
    age_ms: int = 1000,
    **claims: Any,
) -> str:
    """A token signed with an API key, issued `age_ms` ago."""
    now = now_ms()
    capability = None if rights is None else Capability.parse(rights)
    fields = {"token_id": uuid.uuid4().hex, "capability": capability, **claims}
    return issue_token(TokenClaims(name, now - age_ms, now + life_ms, **fields), secret)


class Provider:
    """An identity provider: one RSA and one elliptic key, and a JWKS document of both."""

    def __init__(self) -> None:
        self._keys: dict[str, Any] = {
            "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
        }

    def jwks(self, *algorithms: str) -> bytes:
        """The document, of all keys or of those named."""
        makers: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm}
        entries = [
            {**json.loads(makers[name].to_jwk(self._keys[name].public_key())), "kid": name, "alg": name}
            for name in algorithms or self._keys
        ]
        return json.dumps({"keys": entries}).encode()

    def pem(self, algorithm: str) -> str:
        """A public key as PEM."""
        kinds = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        text: bytes = self._keys[algorithm].public_key().public_bytes(*kinds)
        return text.decode()

    def token(self, algorithm: str = "RS256", kid: str | None = None, **claims: Any) -> str:
        """A token of user `ann`; claims of None are left out."""
        now = time.time()
        payload = {"iss": ISSUER, "sub": "ann", "aud": "chat", "iat": now - 1, "exp": now + 60, **claims}
        payload = {name: value for name, value in payload.items() if value is not None}
        headers = {"kid": kid or algorithm}
        return jwt.encode(payload, self._keys[algorithm], algorithm=algorithm, headers=headers)
