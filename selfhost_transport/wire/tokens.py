"""Keys, token requests and token details (protocol sections 10.1 to 10.3)."""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from selfhost_transport.errors import BadRequest, CapabilityError, InvalidArgument, Unauthorized
from selfhost_transport.wire import fields
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.codes import Code

DEFAULT_TTL_MS = 3_600_000
MAX_TTL_MS = 24 * 3_600_000
TIMESTAMP_WINDOW_MS = 120_000
"""How far a token request's timestamp may be off, either way; nonces are remembered as long."""
MIN_NONCE_LENGTH = 16

_KEY = re.compile(r"([^:\s]+):([^:.\s]+)")
_INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key. `name` is `appId.keyId`."""

    name: str
    secret: str

    @classmethod
    def parse(cls, text: str) -> ApiKey:
        """Read `appId.keyId:secret`. Raises Unauthorized 40101."""
        match = _KEY.fullmatch(text)
        if match is None or "." not in match[1]:
            raise Unauthorized("a key has the form appId.keyId:secret")
        return cls(match[1], match[2])

    @property
    def app_id(self) -> str:
        """The application the key belongs to."""
        return app_of(self.name)

    def __repr__(self) -> str:
        return f"ApiKey(name={self.name!r})"


def app_of(key_name: str) -> str:
    """The application of a key name: the part before the first `.`."""
    return key_name.partition(".")[0]


def parse_basic(header_value: str) -> ApiKey:
    """The key of an `Authorization: Basic` value, given without the scheme. Raises Unauthorized 40101."""
    decoded = base64_text(header_value)
    if decoded is None:
        raise Unauthorized("basic credentials must be the base64 of a key")
    return ApiKey.parse(decoded)


def parse_bearer(header_value: str) -> str:
    """The token of an `Authorization: Bearer` value, given without the scheme; base64 or as it is."""
    # The dots of a JWT are not base64, so the two forms cannot be confused.
    return base64_text(header_value) or header_value.strip()


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request for a token. Numbers and `capability` are kept as received: the MAC covers their text."""

    key_name: str
    ttl: str | None = None
    capability: str | None = None
    client_id: str | None = None
    timestamp: str | None = None
    nonce: str | None = None
    mac: str | None = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> TokenRequest:
        """Read the body of requestToken. Raises BadRequest."""
        key_name = fields.text(wire, "keyName")
        if not key_name:
            raise BadRequest("a token request needs a keyName")
        return cls(
            key_name=key_name,
            ttl=_number_text(wire, "ttl"),
            capability=fields.text(wire, "capability"),
            client_id=fields.text(wire, "clientId"),
            timestamp=_number_text(wire, "timestamp"),
            nonce=fields.text(wire, "nonce"),
            mac=fields.text(wire, "mac"),
        )

    def to_wire(self) -> dict[str, Any]:
        """The body of requestToken; absent fields omitted."""
        numbers = {"ttl": self.ttl, "timestamp": self.timestamp}
        texts = {"keyName": self.key_name, "capability": self.capability, "clientId": self.client_id}
        texts |= {"nonce": self.nonce, "mac": self.mac}
        wire: dict[str, Any] = {name: value for name, value in texts.items() if value is not None}
        return wire | {name: int(value) for name, value in numbers.items() if value is not None}

    def compute_mac(self, secret: str) -> str:
        """The MAC of this request under a key's secret."""
        parts = (self.key_name, self.ttl, self.capability, self.client_id, self.timestamp, self.nonce)
        text = "".join(f"{part or ''}\n" for part in parts)
        digest = hmac.new(secret.encode("utf-8"), text.encode("utf-8", "replace"), sha256).digest()
        return b64encode(digest).decode("ascii")

    def check_mac(self, secret: str) -> None:
        """Raise Unauthorized 40101 unless the MAC is there and right."""
        given = (self.mac or "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, self.compute_mac(secret).encode("ascii")):
            raise Unauthorized("the mac does not match the token request; check the key's secret")

    def check_fresh(self, now_ms: int) -> None:
        """Hold timestamp and nonce to their rules; only a signed request must have them.

        Whether the nonce was seen before is the caller's to check. Raises Unauthorized 40104, 40105.
        """
        signed = self.mac is not None
        if signed or self.timestamp is not None:
            given = None if self.timestamp is None else int(self.timestamp)
            if given is None or abs(given - now_ms) > TIMESTAMP_WINDOW_MS:
                reason = f"the timestamp {given} is not within two minutes of the server's {now_ms}"
                raise Unauthorized(reason, code=Code.TIMESTAMP_NOT_CURRENT)
        if signed and len(self.nonce or "") < MIN_NONCE_LENGTH:
            reason = f"a signed token request needs a nonce of at least {MIN_NONCE_LENGTH} characters"
            raise Unauthorized(reason, code=Code.NONCE_REUSED)

    def check_client_id(self) -> None:
        """Raise BadRequest 40012 for the empty clientId."""
        if self.client_id == "":
            raise BadRequest("clientId may be left out, but not empty", code=Code.INVALID_CLIENT_ID)

    def ttl_ms(self, maximum: int = MAX_TTL_MS) -> int:
        """How long the token is to live; absent or 0 is the default. Raises InvalidArgument 40003."""
        ttl = int(self.ttl or "0")
        if not 0 <= ttl <= maximum:
            raise InvalidArgument(f"ttl must be from 0 to {maximum} ms, not {ttl}")
        return ttl or min(DEFAULT_TTL_MS, maximum)

    def grant(self, key_capability: Capability) -> Capability:
        """The rights of the token: those requested that the key has, all of the key's if none were requested.

        Raises BadRequest 40000 for a malformed request, CapabilityError 40160 when nothing would be left.
        """
        if not self.capability:
            return key_capability
        granted = Capability.parse(self.capability).intersect(key_capability)
        if granted.is_empty:
            raise CapabilityError("the key permits none of the requested capability")
        return granted


@dataclass(frozen=True, slots=True)
class TokenDetails:
    """A token and what it is good for. Times in ms since the epoch; `capability` is JSON text."""

    token: str
    key_name: str | None = None
    issued: int | None = None
    expires: int | None = None
    capability: str | None = None
    client_id: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """The map that requestToken answers with; absent fields omitted."""
        wire = {
            "token": self.token,
            "keyName": self.key_name,
            "issued": self.issued,
            "expires": self.expires,
            "capability": self.capability,
            "clientId": self.client_id,
        }
        return {name: value for name, value in wire.items() if value is not None}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> TokenDetails:
        """Read a TokenDetails map. Raises BadRequest."""
        token = fields.text(wire, "token")
        if not token:
            raise BadRequest("token details need a token")
        return cls(
            token=token,
            key_name=fields.text(wire, "keyName"),
            issued=fields.integer(wire, "issued"),
            expires=fields.integer(wire, "expires"),
            capability=fields.text(wire, "capability"),
            client_id=fields.text(wire, "clientId"),
        )

    def __repr__(self) -> str:
        # The token itself must not reach a log.
        return f"TokenDetails(key_name={self.key_name!r}, client_id={self.client_id!r})"


def _number_text(wire: Mapping[str, Any], name: str) -> str | None:
    """A decimal integer as the text it has in the MAC; numeric strings come from authUrl query parameters."""
    value = wire.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or _INTEGER.fullmatch(value) is None:
        raise InvalidArgument(f"{name} must be an integer")
    return value


def base64_text(value: str) -> str | None:
    """The text behind a base64 header value such as X-Ably-ClientId; None if it is not that, or empty."""
    try:
        return a2b_base64(value.strip(), strict_mode=True).decode("utf-8") or None
    except (Base64Error, ValueError):
        return None
