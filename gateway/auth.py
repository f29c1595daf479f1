"""Who connects, and what they may do: keys, tokens, the development key (protocol section 10)."""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass

from selfhost_transport.errors import NotFound, TransportError, Unauthorized
from selfhost_transport.settings import DEV_KEY_NAME, KeyRule, Settings
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.identity import Identity, key_identity, token_identity
from selfhost_transport.wire.jwt import TokenClaims, token_key_name, verify_token
from selfhost_transport.wire.tokens import ApiKey, app_of, base64_text, parse_basic, parse_bearer


@dataclass(frozen=True, slots=True)
class Credential:
    """A verified caller: its application, rights and identity. `claims` are those of its token, if it has one."""

    key_name: str
    capability: Capability
    identity: Identity
    claims: TokenClaims | None = None

    @property
    def app_id(self) -> str:
        """The application of the key."""
        return app_of(self.key_name)

    @property
    def expires_ms(self) -> int | None:
        """When the token expires, ms since the epoch; None for a key."""
        return None if self.claims is None else self.claims.expires_ms


class Authenticator:
    """Checks credentials against the configured keys. `loopback` tells whether the caller is on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._keys = {rule.name: rule for rule in settings.accepted_keys}
        self._capabilities = {
            rule.name: Capability.parse(dict(rule.capability), strict=False)
            for rule in settings.accepted_keys
        }

    def by_key(self, key: ApiKey, client_id: str | None, *, loopback: bool) -> Credential:
        """The caller with an API key. Raises Unauthorized 40101; NotFound for a key that does not exist."""
        rule = self.rule(key.name)
        if key.name == DEV_KEY_NAME and not loopback:
            raise Unauthorized("the development key is accepted from this machine only; configure a key")
        if not hmac.compare_digest(rule.secret.get_secret_value().encode(), key.secret.encode()):
            raise Unauthorized("the key's secret is wrong")
        return Credential(key.name, self._capabilities[key.name], key_identity(client_id))

    def by_token(self, token: str, client_id: str | None, *, loopback: bool) -> Credential:
        """The caller with a token. Raises TokenError 4014x, Unauthorized 40101 or 40102, NotFound."""
        name = token_key_name(token)
        rule = self.rule(name)
        if name == DEV_KEY_NAME and not loopback:
            raise Unauthorized("tokens of the development key are accepted from this machine only")
        claims = verify_token(token, rule.secret.get_secret_value(), now_ms=now_ms())
        capability = self._capabilities[name]
        if claims.capability is not None:
            capability = claims.capability.intersect(capability)
        return Credential(name, capability, token_identity(claims.client_id, client_id), claims)

    def from_query(self, query: Mapping[str, str], *, loopback: bool) -> Credential:
        """The caller of a websocket, by its query parameters (section 2.1). Unknown keys are 40101."""
        token = query.get("access_token") or query.get("accessToken")
        client_id = query.get("clientId")
        try:
            if query.get("key"):
                return self.by_key(ApiKey.parse(query["key"]), client_id, loopback=loopback)
            if token:
                return self.by_token(token, client_id, loopback=loopback)
        except NotFound as error:
            raise Unauthorized(error.info.message) from error
        raise Unauthorized("no credentials: give a key or an access token")

    def from_headers(
        self, headers: Mapping[str, str], query: Mapping[str, str], *, loopback: bool
    ) -> Credential:
        """The caller of a request: `Authorization`, else the query. `X-Ably-ClientId` counts with a key only."""
        scheme, _, value = headers.get("authorization", "").partition(" ")
        match scheme.lower():
            case "basic":
                client_id = base64_text(headers.get("x-ably-clientid", "")) or query.get("clientId")
                return self.by_key(parse_basic(value), client_id, loopback=loopback)
            case "bearer":
                return self.by_token(parse_bearer(value), query.get("clientId"), loopback=loopback)
            case "":
                return self.from_query(query, loopback=loopback)
        raise Unauthorized("the Authorization header must be Basic with a key, or Bearer with a token")

    def rule(self, key_name: str) -> KeyRule:
        """The configuration of a key. Raises NotFound, with status 401 for a key of a known application."""
        rule = self._keys.get(key_name)
        if rule is not None:
            return rule
        known = any(app_of(name) == app_of(key_name) for name in self._keys)
        raise NotFound(
            f"there is no key {key_name[:64]!r}; check the configuration", status_code=401 if known else 404
        )

    def capability_of(self, key_name: str) -> Capability:
        """The rights of a key."""
        return self._capabilities[key_name]


def is_loopback(host: str | None) -> bool:
    """Whether an address belongs to this machine; a unix socket, which has none, does too."""
    if host is None:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def now_ms() -> int:
    """The wall clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


def outside_token_range(error: TransportError) -> TransportError:
    """A refusal of in-band re-authentication: never a 4014x code, which would make clients loop (section 4.7)."""
    if 40140 <= error.info.code <= 40149 or error.info.code == Code.NOT_FOUND:
        return Unauthorized(error.info.message)
    return error
