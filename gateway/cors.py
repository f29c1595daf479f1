"""Cross-origin headers for browser SDKs (protocol section 9.3)."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALLOW: Final = {
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": (
        "authorization, accept, content-type, last-event-id, x-ably-version, ably-agent, x-ably-clientid"
    ),
    "Access-Control-Expose-Headers": (
        "Link, X-Ably-Errorcode, X-Ably-Errormessage, X-Ably-Serverid, X-Truncated-At, Retry-After"
    ),
    "Access-Control-Max-Age": "86400",
    "Vary": "Origin",
}


class Cors:
    """Answers preflights, and lets the requesting origin read every answer.

    Requests carry credentials in a header of their own, never a cookie, so any origin may ask.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; what is not HTTP, or has no origin, passes through."""
        origin = Headers(scope=scope).get("origin") if scope["type"] == "http" else None
        if origin is None:
            await self._app(scope, receive, send)
            return

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Access-Control-Allow-Origin"] = origin
                headers.update(_ALLOW)
            await send(message)

        if scope["method"] == "OPTIONS":
            await send_allowed({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send_allowed)
