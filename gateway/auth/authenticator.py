"""Who connects, and what they may do: keys, tokens, identity providers, proxies, the host (protocol section 10)."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Protocol

from gateway.auth.callers import HostIdentity, Identify, RequestInfo
from gateway.auth.jwks import Issuers
from gateway.auth.origins import Origins
from selfhost_transport.errors import NotFound, ServiceError, TokenError, TransportError, Unauthorized
from selfhost_transport.hooks import call_hook
from selfhost_transport.settings import DEV_KEY_NAME, KeyRule, ProxyRule, Settings
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.identity import WILDCARD, Identity, key_identity, token_identity
from selfhost_transport.wire.jwt import TokenClaims, token_key_name, verify_token
from selfhost_transport.wire.tokens import ApiKey, app_of, base64_text, parse_basic

logger = logging.getLogger(__name__)

HOOK_TIMEOUT_S: Final = 10.0
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
REVOCABLE_TTL_MS: Final = 3_600_000
"""Tokens of a key whose tokens can be revoked live no longer, so that revocations need not be kept longer."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A verified caller: its application, rights and identity.

    `claims` are those of its token, if it has one; `until_ms`: when a host application wants it renewed.
    """

    key_name: str
    capability: Capability
    identity: Identity
    claims: TokenClaims | None = None
    application: str | None = None
    until_ms: int | None = None

    @property
    def app_id(self) -> str:
        """The application: that of the key, the identity provider, or what the host application names."""
        return app_of(self.key_name) if self.application is None else self.application

    @property
    def expires_ms(self) -> int | None:
        """When it expires, ms since the epoch; None for one that does not, as a key."""
        return self.until_ms if self.claims is None else self.claims.expires_ms


class RevocationList(Protocol):
    """Which tokens were revoked."""

    def check(self, credential: Credential) -> None:
        """Raise TokenError 40141 for a revoked one."""


class _NothingRevoked:
    def check(self, credential: Credential) -> None:
        """Every token is good."""


class Authenticator:
    """Checks callers: first the host application's hook, then trusted proxies, then keys and tokens."""

    def __init__(
        self, settings: Settings, identify: Identify | None = None, revocations: RevocationList | None = None
    ) -> None:
        self._keys = {rule.name: rule for rule in settings.accepted_keys}
        self._capabilities = {
            rule.name: Capability.parse(dict(rule.capability), strict=False)
            for rule in settings.accepted_keys
        }
        self._issuers = Issuers(settings.issuers)
        self._proxies = [_Proxy(rule) for rule in settings.trusted_proxies]
        self._identify = identify
        self.origins = Origins(settings.gateway)
        self._revocations = revocations or _NothingRevoked()

    async def of_connection(self, info: RequestInfo) -> Credential:
        """The caller of a websocket, by its upgrade (section 2.1): the query, or a header where a client can send one.

        Unknown keys are 40101.
        """
        try:
            return await self._trusted(info) or await self._by_query(info)
        except NotFound as error:
            raise Unauthorized(error.info.message) from error

    async def of_request(self, info: RequestInfo) -> Credential:
        """The caller of a request: `Authorization`, else the query. `X-Ably-ClientId` counts with a key only.

        A key may be a Bearer value, too: many clients can send nothing else, and no token has a colon.
        """
        trusted = await self._trusted(info)
        if trusted is not None:
            return trusted
        scheme, _, value = info.headers.get("authorization", "").partition(" ")
        match scheme.lower():
            case "basic":
                return self._by_key_of(info, parse_basic(value))
            case "bearer" if ":" in (info.token or ""):
                return self._by_key_of(info, ApiKey.parse(info.token or ""))
            case "bearer":
                return await self._by_token(info)
            case "":
                return await self.of_connection(info)
        raise Unauthorized("the Authorization header must be Basic with a key, or Bearer with a token")

    def retained(self, info: RequestInfo) -> RequestInfo:
        """Request data kept for the connection's lifetime: all of it if a hook may read it."""
        return (
            info
            if self._identify is not None
            else replace(info, headers=_NOTHING, query=_NOTHING, token=None)
        )

    async def again(self, info: RequestInfo, token: str, client_id: str | None) -> Credential:
        """The caller of a connection that sent a new token in-band (section 4.7)."""
        query = {} if client_id is None else {"clientId": client_id}
        renewed = replace(info, token=token, query=query)
        # A proxy's header is as old as the connection: only the token counts now.
        return await self._by_hook(renewed) or await self._by_token(renewed)

    def is_local(self, info: RequestInfo) -> bool:
        """Whether a request comes from this machine, and not for a page or a client from elsewhere."""
        return self.origins.is_local(info.client, info.headers)

    def _by_key_of(self, info: RequestInfo, key: ApiKey) -> Credential:
        client_id = base64_text(info.headers.get("x-ably-clientid", "")) or info.query.get("clientId")
        return self.by_key(key, client_id, local=self.is_local(info))

    def by_key(self, key: ApiKey, client_id: str | None, *, local: bool) -> Credential:
        """The caller with an API key. Raises Unauthorized 40101; NotFound for a key that does not exist."""
        rule = self.rule(key.name)
        if key.name == DEV_KEY_NAME and not local:
            raise Unauthorized(
                "the development key is accepted from this machine and its pages only; configure a key, or allowed_origins"
            )
        if not hmac.compare_digest(rule.secret.get_secret_value().encode(), key.secret.encode()):
            raise Unauthorized("the key's secret is wrong")
        return Credential(key.name, self._capabilities[key.name], key_identity(client_id))

    def rule(self, key_name: str) -> KeyRule:
        """The configuration of a key. Raises NotFound, with status 401 for a key of a known application."""
        rule = self._keys.get(key_name)
        if rule is not None:
            return rule
        known = any(app_of(name) == app_of(key_name) for name in self._keys)
        raise NotFound(
            f"there is no key {key_name[:64]!r} here: use one of [[keys]] in the configuration; those of Ably's cloud are not "
            "known",
            status_code=401 if known else 404,
        )

    def capability_of(self, key_name: str) -> Capability:
        """The rights of a key."""
        return self._capabilities[key_name]

    async def _trusted(self, info: RequestInfo) -> Credential | None:
        found = await self._by_hook(info)
        if found is not None:
            return found
        proxy = next((proxy for proxy in self._proxies if proxy.named_by(info)), None)
        if proxy is None:
            return None
        if not self.origins.is_foreign(info.headers):
            return proxy.caller(info)
        if _has_credentials(info):
            return None
        page = info.headers.get("origin", "another origin")[:128]
        raise Unauthorized(f"pages of {page} may not use the proxy's authentication; see allowed_origins")

    async def _by_hook(self, info: RequestInfo) -> Credential | None:
        if self._identify is None:
            return None
        explicit = replace(info, headers=self.origins.explicit(info.headers))
        try:
            async with asyncio.timeout(HOOK_TIMEOUT_S):
                found = await call_hook(self._identify, explicit)
            return None if found is None else _of_host(found, info.query.get("clientId"))
        except TransportError:
            raise
        except Exception as error:
            logger.exception("auth.hook_failed path=%s", info.path)
            raise ServiceError("the application's identify function failed; try again") from error

    async def _by_query(self, info: RequestInfo) -> Credential:
        key = info.query.get("key")
        if key:
            return self.by_key(ApiKey.parse(key), info.query.get("clientId"), local=self.is_local(info))
        if info.token:
            return await self._by_token(info)
        scheme, _, value = info.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            return self.by_key(parse_basic(value), info.query.get("clientId"), local=self.is_local(info))
        raise Unauthorized("no credentials: give a key or an access token")

    async def _by_token(self, info: RequestInfo) -> Credential:
        """The caller with a token. Raises TokenError 4014x, Unauthorized 40101 or 40102, NotFound."""
        token, client_id = info.token or "", info.query.get("clientId")
        issued = self._issuers.of(token)
        if issued is None:
            credential = self._by_ably_token(token, client_id, local=self.is_local(info))
            self._revocations.check(credential)
            return credential
        issuer, says = issued
        claims = await issuer.verify(token, says, now_ms())
        capability = issuer.capability
        if claims.capability is not None:
            capability = claims.capability.intersect(capability)
        identity = token_identity(claims.client_id, client_id)
        return Credential(says.issuer, capability, identity, claims, application=says.issuer)

    def _by_ably_token(self, token: str, client_id: str | None, *, local: bool) -> Credential:
        name = token_key_name(token)
        rule = self.rule(name)
        if name == DEV_KEY_NAME and not local:
            raise Unauthorized(
                "tokens of the development key are accepted from this machine and its pages only"
            )
        claims = verify_token(token, rule.secret.get_secret_value(), now_ms=now_ms())
        if rule.revocable_tokens and claims.expires_ms - claims.issued_ms > REVOCABLE_TTL_MS:
            reason = (
                "tokens of a key with revocable_tokens live an hour at most; set exp to iat + 3600 or less"
            )
            raise TokenError(f"the JWT is not valid: {reason}", code=Code.INVALID_JWT)
        capability = self._capabilities[name]
        if claims.capability is not None:
            capability = claims.capability.intersect(capability)
        return Credential(name, capability, token_identity(claims.client_id, client_id), claims)


class _Proxy:
    """Proxies that tell who a client is."""

    def __init__(self, rule: ProxyRule) -> None:
        self._networks = [ipaddress.ip_network(address) for address in rule.addresses]
        self._header = rule.header.lower()
        self._capability = Capability.parse(dict(rule.capability), strict=False)

    def named_by(self, info: RequestInfo) -> str:
        """Whom the header names; '' for a request that did not come through these proxies."""
        client_id = info.headers.get(self._header, "").strip()
        return client_id if client_id and self._trusts(info.peer) else ""

    def caller(self, info: RequestInfo) -> Credential:
        """The caller that the header names."""
        client_id = self.named_by(info)
        if client_id == WILDCARD:
            raise Unauthorized("a proxy may not name the clientId '*'")
        identity = token_identity(client_id, info.query.get("clientId"))
        return Credential(f"proxy:{self._header}", self._capability, identity, application="proxy")

    def _trusts(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _of_host(found: HostIdentity, requested: str | None) -> Credential:
    if not isinstance(found, HostIdentity):
        raise TypeError(f"`identify` returned {type(found).__name__}, not a HostIdentity or None")
    return Credential(
        key_name=f"host:{found.application}",
        capability=Capability.parse(dict(found.capability), strict=False),
        identity=token_identity(found.client_id, requested),
        application=found.application,
        until_ms=found.expires_ms,
    )


def _has_credentials(info: RequestInfo) -> bool:
    """Whether the request itself holds credentials; whether they are good is another question."""
    return bool(info.token or info.query.get("key") or info.headers.get("authorization"))


def now_ms() -> int:
    """The wall clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


def outside_token_range(error: TransportError) -> TransportError:
    """A refusal of in-band re-authentication: never a 4014x code, which would make clients loop (section 4.7)."""
    if 40140 <= error.info.code <= 40149 or error.info.code == Code.NOT_FOUND:
        return Unauthorized(error.info.message)
    return error
