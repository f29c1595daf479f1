"""Cross-origin headers for browser SDKs (protocol section 9.3), and refusal of unknown host names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth.origins import Origins, header_map, host_guard, is_local_origin
from selfhost_transport.errors import ErrorInfo
from selfhost_transport.settings import Settings

_ALLOW: Final = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": (
        "authorization, accept, content-type, user-agent, last-event-id, x-run-id, x-ably-version, ably-agent, "
        "x-ably-clientid, idempotency-key, openai-organization, openai-project, x-stainless-arch, x-stainless-helper-method, "
        "x-stainless-lang, x-stainless-os, x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, "
        "x-stainless-runtime-version, x-stainless-timeout"
    ),
    "Access-Control-Expose-Headers": (
        "Link, X-Ably-Errorcode, X-Ably-Errormessage, X-Ably-Serverid, X-Truncated-At, Retry-After, "
        "X-Workflow-Run-Id, X-Workflow-Stream-Tail-Index"
    ),
    "Access-Control-Max-Age": "86400",
    "Vary": "Origin, Access-Control-Request-Headers, Authorization",
}
_HEADERS: Final = "Access-Control-Allow-Headers"
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Paths that orchestrators ask for by address."""
SAME_ORIGIN_ONLY: Final = {"Cross-Origin-Resource-Policy": "same-origin"}
"""Headers of an answer that no other page may read."""


class Cors:
    """Answers preflights, and lets pages of other origins read the answers to what they ask with own credentials.

    A page whose request has a header `Authorization` knows what is in it; Ably's SDK sends such requests in a mode in
    which browsers want its origin named, and credentials allowed. Nothing else that a browser sends then counts
    (`Origins`). Without that header, and of origins that are not allowed, browsers keep cookies back. Pages of allowed
    origins may send headers of their own, too.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._origins = Origins(settings.gateway)
        self._local_only = settings.accepts_development_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; other protocols, and requests without an origin, pass through."""
        asked = header_map(scope["headers"]) if scope["type"] == "http" else {}
        if "origin" not in asked:
            await self._app(scope, receive, send)
            return
        allowed = self._allowed(asked["origin"], asked)

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if "cross-origin-resource-policy" not in headers:
                    headers.update(allowed)
            await send(message)

        if scope["method"] == "OPTIONS":
            await send_allowed({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send_allowed)

    def _allowed(self, origin: str, asked: Mapping[str, str]) -> dict[str, str]:
        """The headers for a request of a page of that origin."""
        known = self._origins.is_allowed(origin)
        if self._local_only and not (known or is_local_origin(origin)):
            return {}
        explicit = "authorization" in asked or "authorization" in [
            name.strip().lower() for name in asked.get("access-control-request-headers", "").split(",")
        ]
        if known or explicit:
            own = _own_headers(asked.get("access-control-request-headers", "")) if known else ""
            return {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Credentials": "true",
                **_ALLOW,
                _HEADERS: _ALLOW[_HEADERS] + own,
            }
        return {"Access-Control-Allow-Origin": "*", **_ALLOW}


def _own_headers(asked: str) -> str:
    """Headers of a page's own, which may be for a host's hook."""
    names = [name.strip() for name in asked.split(",")][:32]
    return "".join(f", {name}" for name in names if _NAME.fullmatch(name))


class KnownHosts:
    """Refuses requests to a host name that is not this service's, wherever these names are known."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._guard = host_guard(settings.gateway, accepts_development_key=settings.accepts_development_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the upgrade of a websocket."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if self._guard is None or scope["type"] not in ("http", "websocket") or path in _PROBES:
            await self._app(scope, receive, send)
            return
        host = header_map(scope["headers"]).get("host", "")
        if self._guard.answers_to(host):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            reason = f"this gateway does not answer to the host name {host[:64]!r}; see allowed_hosts"
            error = ErrorInfo(40300, 403, reason).to_wire()
            await JSONResponse({"error": error}, 403)(scope, receive, send)
