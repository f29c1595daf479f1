"""requestToken: tokens are JWTs signed with the key they are requested for (protocol sections 10.3 and 10.4)."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from starlette.requests import Request

from gateway.auth.authenticator import REVOCABLE_TTL_MS, now_ms
from gateway.auth.callers import RequestInfo
from gateway.http_format import Reply
from gateway.services import Services
from selfhost_transport.errors import BadRequest, Unauthorized
from selfhost_transport.settings import DEV_KEY_NAME
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.jwt import TokenClaims, issue_token
from selfhost_transport.wire.tokens import (
    MAX_TTL_MS,
    TIMESTAMP_WINDOW_MS,
    TokenDetails,
    TokenRequest,
    parse_basic,
)


class Tokens:
    """Issues tokens."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def request(self, request: Request, key_name: str, body: Any) -> Reply:
        """A token for a signed request, or for one with the key itself. Answers 201 with TokenDetails."""
        if not isinstance(body, dict):
            raise BadRequest("a token request is a map", code=Code.INVALID_BODY)
        wanted = TokenRequest.from_wire({"keyName": key_name, **body})
        rule = self._services.authenticator.rule(key_name)
        local = self._services.authenticator.is_local(RequestInfo.of(request))
        _check_dev_key(key_name, local)
        if wanted.key_name != key_name:
            raise Unauthorized("the keyName of the token request does not match the path")
        secret = rule.secret.get_secret_value()
        if wanted.mac is not None:
            wanted.check_mac(secret)
        else:
            self._check_basic(request, key_name, local)
        now = now_ms()
        wanted.check_fresh(now)
        wanted.check_client_id()
        ttl = wanted.ttl_ms(REVOCABLE_TTL_MS if rule.revocable_tokens else MAX_TTL_MS)
        granted = wanted.grant(self._services.authenticator.capability_of(key_name))
        await self._claim_nonce(wanted)
        claims = TokenClaims(
            key_name=key_name,
            issued_ms=now,
            expires_ms=now + ttl,
            capability=granted,
            client_id=wanted.client_id,
            token_id=wanted.nonce or secrets.token_hex(12),
        )
        details = TokenDetails(
            token=issue_token(claims, secret),
            key_name=key_name,
            issued=now,
            expires=now + ttl,
            capability=granted.text,
            client_id=wanted.client_id,
        )
        return Reply(details.to_wire(), status=201)

    def _check_basic(self, request: Request, key_name: str, local: bool) -> None:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            raise Unauthorized("a token request is signed, or sent with the key")
        key = parse_basic(value)
        if key.name != key_name:
            raise Unauthorized("the key does not match the path")
        self._services.authenticator.by_key(key, None, local=local)

    async def _claim_nonce(self, wanted: TokenRequest) -> None:
        """Raises Unauthorized 40105 for a nonce that any gateway has seen with this timestamp."""
        if wanted.nonce is None:
            return
        seen = f"{wanted.key_name}\n{wanted.timestamp or ''}\n{wanted.nonce}"
        digest = hashlib.blake2b(seen.encode(), digest_size=16).hexdigest()
        key = f"{self._services.settings.redis.prefix}:nonce:{digest}"
        fresh = await self._services.redis.command("SET", key, "1", "NX", "PX", 2 * TIMESTAMP_WINDOW_MS)
        if fresh is None:
            raise Unauthorized("the nonce was used before; sign a new request", code=Code.NONCE_REUSED)


def _check_dev_key(key_name: str, local: bool) -> None:
    if key_name == DEV_KEY_NAME and not local:
        raise Unauthorized(
            "the development key is accepted from this machine and its pages only; configure a key, or allowed_origins"
        )
