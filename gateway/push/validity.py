"""Whether a push subscription may still be used: as long as the credentials that it was made with were not taken back."""

from __future__ import annotations

from gateway.auth.authenticator import Credential, now_ms
from gateway.auth.revocations import Revocations
from selfhost_transport.settings import Settings
from selfhost_transport.store.push import PushSource
from selfhost_transport.wire.capability import Capability
from selfhost_transport.wire.identity import Identity
from selfhost_transport.wire.jwt import TokenClaims


def source_of(credential: Credential) -> PushSource:
    """What of a caller's credentials is kept with a subscription."""
    claims = credential.claims
    if claims is None:
        return PushSource(credential.key_name)
    resources = None if claims.capability is None else tuple(str(one) for one in claims.capability.rights)
    issued_ms = int(claims.issued_ms)
    return PushSource(credential.key_name, issued_ms, claims.client_id, claims.revocation_key, resources)


def is_valid(source: PushSource, settings: Settings, revocations: Revocations) -> bool:
    """False once the key or issuer is configured no more, or the token was revoked; that it has expired does not count."""
    named = {rule.name for rule in settings.accepted_keys} | {rule.issuer for rule in settings.issuers}
    # Proxies and host applications name themselves with a colon; keys have none, and issuers are compared first.
    if source.key_name not in named and not source.key_name.startswith(("proxy:", "host:")):
        return False
    if source.issued_ms is None:
        return True
    applies_at = revocations.applies_at(_credential(source, source.issued_ms))
    return applies_at is None or applies_at > now_ms()


def _credential(source: PushSource, issued_ms: int) -> Credential:
    capability = None
    if source.resources is not None:
        capability = Capability.parse({one: ["subscribe"] for one in source.resources}, strict=False)
    claims = TokenClaims(
        source.key_name, issued_ms, issued_ms, capability, source.client_id, source.revocation_key
    )
    return Credential(
        source.key_name, Capability.NONE, Identity(source.client_id, may_assume_any=False), claims
    )
