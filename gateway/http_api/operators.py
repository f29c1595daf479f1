"""Pages for operators only: metrics and the API description, on the port that clients use."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from gateway.auth.callers import RequestInfo
from gateway.http_api.description import DESCRIPTION_HEADERS, description_page
from gateway.http_api.errors import error_response
from gateway.http_api.security import add_security
from gateway.services import Host, Services
from selfhost_transport.errors import CapabilityError, TransportError
from selfhost_transport.wire.capability import Operation


async def require_operator(request: Request, services: Services) -> None:
    """Let requests from this machine pass, and those of credentials with `stats` on all sessions.

    Raises Unauthorized, CapabilityError.
    """
    info = RequestInfo.of(request)
    if services.authenticator.is_local(info):
        return
    credential = await services.authenticator.of_request(info)
    if not credential.capability.allows_on_all(Operation.STATS):
        raise CapabilityError("the credentials do not permit `stats` on all sessions")


def add_documentation(app: FastAPI, gateway: Host) -> None:
    """Serve `/docs` and `/openapi.json` to operators. The application was made without routes of its own for them."""

    def description() -> dict[str, Any]:
        # Made at the first call, when all routes are there.
        openapi = app.openapi()
        if "security" not in openapi:
            add_security(openapi)
        return openapi

    async def described(request: Request) -> Response:
        try:
            await require_operator(request, gateway.running())
        except TransportError as error:
            return error_response(error.info)
        return JSONResponse(description())

    async def shown(request: Request) -> Response:
        try:
            await require_operator(request, gateway.running())
        except TransportError as error:
            return error_response(error.info)
        # A browser that gave its credentials in the address gives them for the description too.
        query = urlencode(list(request.query_params.multi_items()))
        source = f"openapi.json{'?' if query else ''}{query}"
        return HTMLResponse(description_page(description(), source), headers=DESCRIPTION_HEADERS)

    app.add_api_route("/openapi.json", described, methods=["GET"], include_in_schema=False)
    app.add_api_route("/docs", shown, methods=["GET"], include_in_schema=False)
