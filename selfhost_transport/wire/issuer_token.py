"""JWTs of identity providers: signature by public key, claims by configurable names (acceptance AUT-2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import orjson
from jwt import PyJWTError
from jwt.api_jws import PyJWS

from selfhost_transport.wire.identity import WILDCARD
from selfhost_transport.wire.jwt import TokenClaims, VerificationKey, invalid_jwt, read_claims

_JWS = PyJWS(algorithms=["RS256", "ES256"])
_ABLY_CLIENT_ID, _ABLY_CAPABILITY = "x-ably-clientId", "x-ably-capability"


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """Rules for an issuer's tokens. `audience` and `capability` None: that claim is not checked."""

    issuer: str
    audience: str | None = None
    client_id: str = "sub"
    capability: str | None = None


@dataclass(frozen=True, slots=True)
class Unverified:
    """What a JWT says of itself; only good for choosing the key to verify it with."""

    issuer: str
    algorithm: str
    key_id: str | None


def peek(token: str) -> Unverified | None:
    """Who claims to have issued a JWT; None for anything without a readable header and `iss`."""
    try:
        decoded = jwt.decode_complete(token, options={"verify_signature": False})
    except (PyJWTError, ValueError, TypeError, RecursionError):
        return None
    header, payload = decoded["header"], decoded["payload"]
    issuer, algorithm, key_id = payload.get("iss"), header.get("alg"), header.get("kid")
    if not isinstance(issuer, str) or not isinstance(algorithm, str):
        return None
    return Unverified(issuer, algorithm, key_id if isinstance(key_id, str) else None)


def verify_issuer_token(
    token: str, key: VerificationKey, rules: ClaimRules, *, algorithm: str, now_ms: int
) -> TokenClaims:
    """Check signature, times, issuer and audience, and read the claims. Raises TokenError 40144, 40142."""
    try:
        payload = orjson.loads(_JWS.decode(token, key, algorithms=[algorithm]))
    except (PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise invalid_jwt(f"{error}") from error
    if not isinstance(payload, dict) or payload.get("iss") != rules.issuer:
        raise invalid_jwt("its issuer does not match the key that signed it")
    _check_audience(payload, rules.audience)
    return read_claims(_as_ably_claims(payload, rules), rules.issuer, now_ms)


def _check_audience(payload: Mapping[str, Any], wanted: str | None) -> None:
    given = payload.get("aud")
    audiences = given if isinstance(given, list) else [given]
    if wanted is not None and wanted not in audiences:
        raise invalid_jwt("it was issued for another audience")


def _as_ably_claims(payload: Mapping[str, Any], rules: ClaimRules) -> dict[str, Any]:
    """The claims under the names that the rest of the service reads; nothing else is taken over."""
    claims = {name: payload[name] for name in ("iat", "exp", "nbf", "jti") if name in payload}
    client_id = payload.get(rules.client_id)
    if client_id == WILDCARD:
        # Otherwise a user who may choose a name could choose to be every client.
        raise invalid_jwt(f"its claim {rules.client_id} may not be {WILDCARD!r}")
    claims[_ABLY_CLIENT_ID] = client_id
    if rules.capability is not None:
        # Without the claim the token permits nothing: a forgotten claim must not widen rights.
        claims[_ABLY_CAPABILITY] = payload.get(rules.capability) or "{}"
    return claims
