"""revokeTokens: ends the use of tokens that were issued already (protocol section 10.7)."""

from __future__ import annotations

from typing import Any, Final

from gateway.auth.authenticator import Authenticator, now_ms
from gateway.auth.callers import RequestInfo
from gateway.auth.revocations import Revocations
from gateway.http_format import Reply
from selfhost_transport.errors import BadRequest, InvalidArgument, TransportError, Unauthorized
from selfhost_transport.store.revocations import Revocation, TargetKind
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.tokens import parse_basic

MAX_TARGETS: Final = 100
REAUTH_MARGIN_MS: Final = 30_000
"""How long clients may continue with a revoked token where they are given time to renew it."""


async def revoke_tokens(
    authenticator: Authenticator, revocations: Revocations, info: RequestInfo, key_name: str, body: Any
) -> Reply:
    """Revoke by clientId, revocationKey or channel. Each target has a result of its own.

    Raises Unauthorized 40162, 40133, 40163, BadRequest.
    """
    _check_key(authenticator, info, key_name)
    if not isinstance(body, dict) or not isinstance(body.get("targets"), list):
        raise BadRequest("the body is a map with a list of targets", code=Code.INVALID_BODY)
    if not 1 <= len(body["targets"]) <= MAX_TARGETS:
        raise BadRequest(f"one request revokes by 1 to {MAX_TARGETS} targets")
    now = now_ms()
    issued_before = _issued_before(body.get("issuedBefore"), now)
    applies_at = now + REAUTH_MARGIN_MS if body.get("allowReauthMargin") is True else now
    accepted: list[Revocation] = []
    results: list[dict[str, Any]] = []
    for target in body["targets"]:
        try:
            kind, value = _parse(target)
        except TransportError as error:
            results.append({"target": target, "error": error.info.to_wire()})
            continue
        accepted.append(Revocation(key_name, kind, value, issued_before, applies_at))
        results.append({"target": target, "issuedBefore": issued_before, "appliesAt": applies_at})
    if accepted:
        await revocations.add(accepted)
    counts = {"successCount": len(accepted), "failureCount": len(results) - len(accepted)}
    return Reply({**counts, "results": results}, status=201)


def _check_key(authenticator: Authenticator, info: RequestInfo, key_name: str) -> None:
    scheme, _, value = info.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise Unauthorized("tokens are revoked with the key itself", code=Code.REVOKE_NEEDS_BASIC_AUTH)
    key = parse_basic(value)
    authenticator.by_key(key, None, local=authenticator.is_local(info))
    if key.name != key_name:
        raise Unauthorized(
            "tokens are revoked with the key that issued them", code=Code.WRONG_KEY_FOR_REVOCATION
        )
    if not authenticator.rule(key_name).revocable_tokens:
        reason = "the key's tokens are not revocable; set revocable_tokens for it"
        raise Unauthorized(reason, code=Code.TOKENS_NOT_REVOCABLE)


def _issued_before(value: object, now: int) -> int:
    if value is None:
        return now
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= now:
        raise InvalidArgument("issuedBefore is a time in ms since the epoch, not in the future")
    return value


def _parse(target: object) -> tuple[TargetKind, str]:
    kind, colon, value = target.partition(":") if isinstance(target, str) else ("", "", "")
    if not colon or not value or kind not in list(TargetKind):
        known = ", ".join(f"{name}:…" for name in TargetKind)
        raise BadRequest(f"a target is one of {known}")
    return TargetKind(kind), value
