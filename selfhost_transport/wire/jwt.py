"""Issuing and verifying Ably-style JWTs, and their claims (protocol section 10.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import orjson
from jwt import PyJWK, PyJWS, PyJWTError
from jwt.algorithms import HMACAlgorithm

from selfhost_transport.errors import BadRequest, TokenError, Unauthorized
from selfhost_transport.wire.capability import Capability, Resource
from selfhost_transport.wire.codes import Code

_Value = TypeVar("_Value")
Algorithm = Literal["HS256", "RS256", "ES256"]
VerificationKey = str | bytes | PyJWK
"""An HS256 secret, a public key in PEM, or an entry of a JWKS document."""

CLOCK_AHEAD_MS = 120_000
"""How far in the future `iat` and `nbf` may lie; `exp` has no grace."""

_CAPABILITY = "x-ably-capability"
_CLIENT_ID = "x-ably-clientId"
_REVOCATION_KEY = "x-ably-revocation-key"
_EMBEDDED = "x-ably-token"
_USER_CLAIM = "ably.channel."
_RATE_LIMIT = "ably.limits.publish.perAttachment.maxRate."
_KEY_FORM = re.compile(r"[^.:]+\.[^:]+:.+")
_JWT_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
_OPAQUE_FORM = re.compile(r"[A-Za-z0-9_-]+\.[^\s:]+")


class _AnyLengthHmac(HMACAlgorithm):
    """HS256 without the library's warning: how long the secrets are is the operator's configuration."""

    def check_key_length(self, key: bytes) -> str | None:
        return None


def _make_jws() -> PyJWS:
    jws = PyJWS(algorithms=["HS256", "RS256", "ES256"])
    jws.unregister_algorithm("HS256")
    jws.register_algorithm("HS256", _AnyLengthHmac(HMACAlgorithm.SHA256))
    return jws


_JWS = _make_jws()


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a verified token says. Times in ms since the epoch, `expires_ms` with its fraction of a second.

    `capability` None means that of the key; else the effective one is its intersection with the key's.
    `user_claims` and `publish_rates` (messages per second) are by channel pattern.
    """

    key_name: str
    issued_ms: int
    expires_ms: int
    capability: Capability | None = None
    client_id: str | None = None
    revocation_key: str | None = None
    token_id: str | None = None
    embedded_token: str | None = None
    user_claims: Mapping[str, str] = field(default_factory=dict)
    publish_rates: Mapping[str, float] = field(default_factory=dict)

    def user_claim(self, channel: str) -> str | None:
        """`extras.userClaim` for a channel: the claim of the most specific matching pattern."""
        return _most_specific(self.user_claims, channel)

    def publish_rate(self, channel: str) -> float | None:
        """The publish limit for a channel, messages per second, None without one."""
        return _most_specific(self.publish_rates, channel)


def issue_token(claims: TokenClaims, secret: str) -> str:
    """A JWT with these claims, signed with the key's secret (HS256).

    `token_id` must be set to something unique, or two tokens of one millisecond are the same.
    """
    payload: dict[str, Any] = {"iat": claims.issued_ms / 1000, "exp": claims.expires_ms / 1000}
    texts = {"jti": claims.token_id, _CLIENT_ID: claims.client_id, _REVOCATION_KEY: claims.revocation_key}
    payload |= {name: value for name, value in texts.items() if value is not None}
    if claims.capability is not None:
        payload[_CAPABILITY] = claims.capability.text
    payload |= {_USER_CLAIM + pattern: value for pattern, value in claims.user_claims.items()}
    payload |= {_RATE_LIMIT + pattern: rate for pattern, rate in claims.publish_rates.items()}
    return _JWS.encode(orjson.dumps(payload), secret, algorithm="HS256", headers={"kid": claims.key_name})


def token_key_name(token: str) -> str:
    """The `kid` of a JWT, not verified: which key to verify it with.

    Raises Unauthorized 40101 for a text that is no token at all, TokenError 40143 for an opaque token (this
    service issues none), 40144 for a JWT without a readable header or `kid`.
    """
    if _JWT_FORM.fullmatch(token) is None:
        if _OPAQUE_FORM.fullmatch(token):
            raise TokenError(
                "the token was not issued by this service: issue tokens with one of its own keys; those of Ably's cloud are "
                "not valid here",
                code=Code.TOKEN_UNRECOGNISED,
            )
        hint = ": an API key is given as `key`, not as a token" if _KEY_FORM.fullmatch(token) else ""
        raise Unauthorized(f"the access token is neither a JWT nor a token{hint}")
    try:
        key_name = _JWS.get_unverified_header(token).get("kid")
    except (PyJWTError, ValueError, RecursionError) as error:
        raise invalid_jwt(f"its header cannot be read: {error}") from error
    if not isinstance(key_name, str) or not key_name:
        raise invalid_jwt("it has no kid to name its key")
    return key_name


def verify_token(
    token: str,
    key: VerificationKey,
    *,
    now_ms: int,
    algorithm: Algorithm = "HS256",
    key_name: str | None = None,
) -> TokenClaims:
    """Check signature and times of a JWT and read its claims.

    `key_name` overrides the `kid`, for identity providers whose `kid` names one of their own keys. Raises
    TokenError: 40144 where it does not verify or lacks a claim, 40142 where it has expired.
    """
    try:
        raw = _JWS.decode(token, key, algorithms=[algorithm])
        payload = orjson.loads(raw)
    except (PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise invalid_jwt(f"{error}") from error
    if not isinstance(payload, dict):
        raise invalid_jwt("its payload is not a map")
    return read_claims(payload, key_name or token_key_name(token), now_ms)


def read_claims(payload: Mapping[str, Any], key_name: str, now_ms: int) -> TokenClaims:
    """The claims of a payload whose signature was checked. Raises TokenError 40144, 40142."""
    issued_ms, expires_ms = _time_ms(payload, "iat"), _time_ms(payload, "exp")
    if issued_ms is None or expires_ms is None or expires_ms <= issued_ms:
        raise invalid_jwt("it needs iat and exp, with exp later than iat")
    if max(issued_ms, _time_ms(payload, "nbf") or 0) > now_ms + CLOCK_AHEAD_MS:
        raise invalid_jwt("it is not valid yet; check the issuer's clock")
    if expires_ms <= now_ms:
        raise TokenError("the token has expired; obtain a new one", code=Code.TOKEN_EXPIRED)
    return TokenClaims(
        key_name=key_name,
        issued_ms=issued_ms,
        expires_ms=expires_ms,
        capability=_capability(payload),
        client_id=_client_id(payload),
        revocation_key=_text(payload, _REVOCATION_KEY),
        token_id=_text(payload, "jti"),
        embedded_token=_text(payload, _EMBEDDED),
        user_claims=_by_pattern(payload, _USER_CLAIM, str),
        publish_rates={
            pattern: float(rate) for pattern, rate in _by_pattern(payload, _RATE_LIMIT, int | float).items()
        },
    )


def _time_ms(payload: Mapping[str, Any], name: str) -> int | None:
    """A NumericDate, seconds that may have a fraction, in ms."""
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10**12:
        raise invalid_jwt(f"its {name} is not a time in seconds")
    return round(value * 1000)


def _text(payload: Mapping[str, Any], name: str) -> str | None:
    value = payload.get(name)
    if value is None or isinstance(value, str):
        return value
    raise invalid_jwt(f"its claim {name} is not a string")


def _client_id(payload: Mapping[str, Any]) -> str | None:
    client_id = _text(payload, _CLIENT_ID)
    if client_id == "":
        raise invalid_jwt(f"its claim {_CLIENT_ID} is empty; leave it out")
    return client_id


def _capability(payload: Mapping[str, Any]) -> Capability | None:
    value = payload.get(_CAPABILITY)
    if value is None or value == "":
        return None
    if not isinstance(value, str | dict):
        raise invalid_jwt(f"its claim {_CAPABILITY} is not JSON text")
    try:
        return Capability.parse(value, strict=False)
    except BadRequest as error:
        raise invalid_jwt(f"its claim {_CAPABILITY}: {error.info.message}") from error


def _by_pattern(payload: Mapping[str, Any], prefix: str, kind: Any) -> dict[str, Any]:
    """Claims named by a channel pattern; those with a value of another type are left out."""
    return {
        name.removeprefix(prefix): value
        for name, value in payload.items()
        if name.startswith(prefix) and isinstance(value, kind) and not isinstance(value, bool)
    }


def _most_specific(claims: Mapping[str, _Value], channel: str) -> _Value | None:
    """The value of the matching pattern with the most literal segments; an exact one comes first."""
    matching = [
        (pattern == channel, sum(segment != "*" for segment in resource.segments), pattern)
        for pattern in claims
        if (resource := Resource.parse(pattern)).matches(channel)
    ]
    return claims[max(matching)[2]] if matching else None


def invalid_jwt(reason: str) -> TokenError:
    """The error for a JWT that is refused for this reason."""
    return TokenError(f"the JWT is not valid: {reason}", code=Code.INVALID_JWT)
