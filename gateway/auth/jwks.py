"""Public keys of identity providers: read or fetched, cached, refreshed when an unknown one is used."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from jwt import PyJWK, PyJWTError

from selfhost_transport.errors import StoreUnavailable, TokenError
from selfhost_transport.settings import IssuerRule
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.issuer_token import ClaimRules, Unverified, peek, verify_issuer_token
from selfhost_transport.wire.jwt import TokenClaims, VerificationKey

logger = logging.getLogger(__name__)

MAX_AGE_S: Final = 600.0
"""After this long the keys are fetched again with the next token, so that withdrawn ones are noticed."""
REFRESH_PAUSE_S: Final = 10.0
"""Tokens with made-up key ids make the gateway ask no more often than this."""
FETCH_TIMEOUT_S: Final = 5.0
MAX_DOCUMENT: Final = 262_144
MAX_KEYS: Final = 100

Read = Callable[[], Awaitable[bytes]]


class KeySet:
    """The keys of one JWKS document. `clock` in seconds."""

    def __init__(self, read: Read, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._keys: list[PyJWK] = []
        # When the document was asked for, and when that last succeeded.
        self._asked: float | None = None
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    async def find(self, key_id: str | None, algorithm: str) -> PyJWK | None:
        """The key a token names, or the only one that fits; None if there is none.

        Raises StoreUnavailable while no key could be read at all.
        """
        found = self._known(key_id, algorithm)
        if found is not None and not self._is_old():
            return found
        async with self._reading:
            # The keys may have been fetched while this call waited.
            found = self._known(key_id, algorithm)
            if (found is None or self._is_old()) and self._may_ask():
                await self._refresh()
                found = self._known(key_id, algorithm)
        if found is None and self._read_at is None:
            why = "the identity provider's keys are unavailable; try again"
            raise StoreUnavailable(why, client_message=why)
        return found

    def _known(self, key_id: str | None, algorithm: str) -> PyJWK | None:
        fitting = [key for key in self._keys if key.algorithm_name == algorithm]
        if key_id is not None:
            return next((key for key in fitting if key.key_id == key_id), None)
        return fitting[0] if len(fitting) == 1 else None

    def _is_old(self) -> bool:
        return self._read_at is None or self._clock() - self._read_at > MAX_AGE_S

    def _may_ask(self) -> bool:
        return self._asked is None or self._clock() - self._asked > REFRESH_PAUSE_S

    async def _refresh(self) -> None:
        """Read the document. On failure the keys that are known stay in use."""
        self._asked = self._clock()
        try:
            self._keys = list(parse_keys(await self._read()))
        except (OSError, httpx.HTTPError, ValueError) as error:
            logger.warning("issuer.keys_unreadable error=%r", error)
            return
        self._read_at = self._clock()


def parse_keys(document: bytes) -> Iterable[PyJWK]:
    """The usable keys of a JWKS document; those of unknown kinds are left out. Raises ValueError."""
    parsed: Any = orjson.loads(document)
    entries = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"a JWKS document is a map with at most {MAX_KEYS} keys")
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("use") not in (None, "sig"):
            continue
        try:
            yield PyJWK(entry)
        except PyJWTError as error:
            logger.info("issuer.key_skipped kid=%s error=%s", entry.get("kid"), error)


@dataclass(frozen=True, slots=True)
class Issuer:
    """One identity provider. `capability` is the most its tokens can permit."""

    rule: IssuerRule
    capability: Capability
    key: VerificationKey | None
    keys: KeySet | None

    @classmethod
    def of(cls, rule: IssuerRule) -> Issuer:
        """An issuer as configured; nothing is read yet."""
        capability = Capability.parse(dict(rule.capability), strict=False)
        return cls(rule, capability, rule.public_key, _key_set(rule))

    async def verify(self, token: str, says: Unverified, now_ms: int) -> TokenClaims:
        """Check a token that says it is of this issuer. Raises TokenError 40144, 40142, StoreUnavailable."""
        rule = self.rule
        if says.algorithm not in rule.algorithms:
            raise TokenError("the JWT's signing algorithm is not accepted", code=Code.INVALID_JWT)
        key = self.key if self.keys is None else await self.keys.find(says.key_id, says.algorithm)
        if key is None:
            raise TokenError(
                "the JWT is signed with a key that its issuer does not publish", code=Code.INVALID_JWT
            )
        claims = ClaimRules(rule.issuer, rule.audience, rule.client_id_claim, rule.capability_claim)
        return verify_issuer_token(token, key, claims, algorithm=says.algorithm, now_ms=now_ms)


class Issuers:
    """All identity providers."""

    def __init__(self, rules: Iterable[IssuerRule]) -> None:
        self._by_name = {rule.issuer: Issuer.of(rule) for rule in rules}

    def of(self, token: str) -> tuple[Issuer, Unverified] | None:
        """The issuer that a token says it is of, if that is a configured one."""
        says = peek(token) if self._by_name else None
        issuer = self._by_name.get(says.issuer) if says is not None else None
        return (issuer, says) if issuer is not None and says is not None else None


def _key_set(rule: IssuerRule) -> KeySet | None:
    if rule.jwks_url is not None:
        return KeySet(lambda: _fetch(str(rule.jwks_url)))
    if rule.jwks_file is not None:
        return KeySet(lambda: asyncio.to_thread(Path(str(rule.jwks_file)).read_bytes))
    return None


async def _fetch(url: str) -> bytes:
    """A document of bounded size. Raises httpx.HTTPError, ValueError."""
    received = bytearray()
    try:
        async with (
            asyncio.timeout(FETCH_TIMEOUT_S),
            httpx.AsyncClient(timeout=FETCH_TIMEOUT_S) as http,
            http.stream("GET", url) as response,
        ):
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > MAX_DOCUMENT:
                    raise ValueError(f"the JWKS document exceeds {MAX_DOCUMENT} bytes")
    except TimeoutError:
        raise httpx.ReadTimeout(f"no answer within {FETCH_TIMEOUT_S} s") from None
    return bytes(received)
