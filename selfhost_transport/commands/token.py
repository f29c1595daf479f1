"""`token`: a JWT for a client, signed with a configured key."""

from __future__ import annotations

import secrets
import time
from datetime import timedelta

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import KeyRule, Settings
from selfhost_transport.settings_values import parse_duration
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.jwt import TokenClaims, issue_token


def issue(
    settings: Settings, *, key: str | None, client_id: str | None, capability: str | None, ttl: str
) -> str:
    """The token. Raises InvalidArgument for an unknown key, a bad duration, a bad capability."""
    rule = _key(settings, key)
    try:
        valid = parse_duration(ttl)
    except ValueError as error:
        raise InvalidArgument(f"--ttl: {error}") from None
    if not valid:
        raise InvalidArgument("--ttl: a token needs a lifetime above 0")
    now_ms = int(time.time() * 1000)
    claims = TokenClaims(
        key_name=rule.name,
        issued_ms=now_ms,
        expires_ms=now_ms + valid // timedelta(milliseconds=1),
        capability=None if capability is None else Capability.parse(capability),
        client_id=client_id,
        token_id=secrets.token_urlsafe(9),
    )
    return issue_token(claims, rule.secret.get_secret_value())


def _key(settings: Settings, name: str | None) -> KeyRule:
    keys = settings.accepted_keys
    if not keys:
        raise InvalidArgument(
            "no key is configured; give the file with [[keys]] by --config (docs/configuration.md), or --dev for `dev`"
        )
    for key in keys:
        if name in (None, key.name):
            return key
    raise InvalidArgument(f"there is no key {name!r}; configured are {', '.join(key.name for key in keys)}")
