"""Who may call: API keys, identity providers, proxies that have verified their callers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from selfhost_transport.settings.section import Rights, Section
from selfhost_transport.settings_values import require_network

# The well-known key of the `dev` command: every right, accepted from loopback only.
DEV_KEY_NAME = "dev.local"
DEV_KEY_SECRET = "development-secret"


class KeyRule(Section):
    """One Ably API key, `name:secret` on the wire."""

    name: str = Field(pattern=r"^[^.:\s]+\.[^.:\s]+$")
    """`appId.keyId`."""
    secret: SecretStr = Field(min_length=1)
    """The part after the colon; never shown."""
    capability: Rights = Field(default={"*": ("*",)})
    """Channel pattern to the operations allowed on it."""
    revocable_tokens: bool = False
    """Whether tokens made from this key can be revoked; they then live at most an hour."""


class IssuerRule(Section):
    """An identity provider whose JWTs are accepted. Exactly one of the three sources of keys is given."""

    issuer: str = Field(min_length=1)
    """The claim `iss` of its tokens."""
    jwks_url: str | None = Field(default=None, pattern=r"^https?://")
    """Where its public keys are fetched from (JWKS)."""
    jwks_file: Path | None = None
    """A file with the same content, for places without outbound network."""
    public_key: str | None = Field(default=None, min_length=1)
    """One public key, as PEM text."""
    audience: str | None = Field(default=None, min_length=1)
    """Value that the claim `aud` must contain; absent: not checked."""
    algorithms: tuple[Literal["RS256", "ES256"], ...] = Field(default=("RS256", "ES256"), min_length=1)
    """Signatures that are accepted: `RS256`, `ES256`."""
    client_id_claim: str = Field(default="sub", min_length=1)
    """The claim that becomes the client id."""
    capability_claim: str | None = Field(default=None, min_length=1)
    """Claim that narrows the rights: a map, or its JSON text; absent: all tokens have those of `capability`."""
    capability: Rights = Field(default={"*": ("subscribe", "publish", "history", "presence")})
    """The most that its tokens can permit: channel pattern to operations."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(source is not None for source in (self.jwks_url, self.jwks_file, self.public_key)) != 1:
            raise ValueError("give exactly one of jwks_url, jwks_file, public_key")
        return self


class ProxyRule(Section):
    """Proxies that have verified who connects, and tell it in a header."""

    addresses: tuple[Annotated[str, AfterValidator(require_network)], ...] = Field(min_length=1)
    """Addresses or networks (`10.0.0.0/8`) of the proxies; the header is ignored from any other address."""
    header: str = Field(pattern=r"^[A-Za-z0-9-]+$")
    """The header that holds the client id, for example `X-Forwarded-User`; the proxy has to drop a client's own."""
    capability: Rights = Field(default={"*": ("subscribe", "publish", "history", "presence")})
    """The rights of these clients: channel pattern to operations."""
