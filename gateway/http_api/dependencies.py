"""What the routes of this interface share: who calls, which session, the running services, and how a refusal is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any, ClassVar
from urllib.parse import unquote

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import Scope

from gateway.auth.authenticator import Credential
from gateway.auth.callers import RequestInfo
from gateway.http_api.body_limit import bounded
from gateway.http_api.errors import error_response, validation_error
from gateway.http_api.formats import in_format_asked_for, with_json_body
from gateway.services import Host, Services
from selfhost_transport import tracing
from selfhost_transport.errors import ErrorInfo, ServiceError, TransportError
from selfhost_transport.wire.channel import check_name
from selfhost_transport.wire.codes import Code

logger = logging.getLogger(__name__)


def in_format(request: Request, response: Response) -> Response:
    """An answer as the request asks for it."""
    services: Services | None = request.app.state.gateway.services
    return in_format_asked_for(request, response, services.server_id if services is not None else "")


def running(request: Request) -> Services:
    """The services of the gateway that serves this application."""
    gateway: Host = request.app.state.gateway
    return gateway.running()


Running = Annotated[Services, Depends(running)]


async def caller(request: Request, services: Running) -> Credential:
    """The verified caller."""
    return await services.authenticator.of_request(RequestInfo.of(request))


def session_name(session: str) -> str:
    """The session of the path. Raises InvalidChannelName."""
    check_name(session)
    return session


Caller = Annotated[Credential, Depends(caller)]
Session = Annotated[str, Depends(session_name)]


class TypedErrorRoute(APIRoute):
    """Answers every refusal with `{"error": {code, statusCode, message}}`. A session's name may hold an encoded `/`."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Matches the path as it was sent; the parameters are decoded afterwards."""
        raw: bytes = scope.get("raw_path") or b""
        if b"%2f" not in raw.lower():
            return super().matches(scope)
        sent = raw.partition(b"?")[0].decode("ascii", "replace")
        match, child = super().matches({**scope, "path": sent})
        if match is not Match.NONE:
            params = child["path_params"]
            decoded = {name: unquote(params[name]) for name in self.param_convertors}
            child = {**child, "path_params": {**params, **decoded}}
        return match, child

    def get_route_handler(self) -> Callable[[Request], Any]:
        """The handler with errors turned into answers."""
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            response = in_format(request, await self._answered(handler, request))
            if response.status_code < 400 or not isinstance(response, JSONResponse):
                return response
            return self.refusal(response)

        return answered

    async def _answered(self, handler: Callable[[Request], Any], request: Request) -> Response:
        try:
            readable = await with_json_body(self.bounded(request))
            with tracing.incoming(request.headers.get(tracing.TRACEPARENT)):
                response: Response = await handler(readable)
                return response
        except RequestValidationError as error:
            return error_response(validation_error(error, request.headers.get("content-type", "")))
        except TransportError as error:
            return error_response(error.info)
        except HTTPException as error:
            if isinstance(error.__cause__, TransportError):
                return error_response(error.__cause__.info)
            # 400 is a body that cannot be parsed at all: bad UTF-8, nested too deeply.
            if error.status_code != 400:
                raise
            info = ErrorInfo(Code.INVALID_BODY.value, 400, "the body is not a JSON document in UTF-8")
            return error_response(info)
        except UnicodeEncodeError:
            info = ErrorInfo(Code.INVALID_BODY.value, 400, "a text holds half of a surrogate pair")
            return error_response(info)
        except Exception:
            logger.exception("api.failed path=%s", request.url.path)
            return error_response(ServiceError("internal error; try again").info)

    def refusal(self, refused: JSONResponse) -> Response:
        """A refusal in the form that these paths' clients know."""
        return refused

    def bounded(self, request: Request) -> Request:
        """The request, with a body no larger than these paths take."""
        return bounded(request, running(request).settings.gateway.max_frame_size)


class WholeConversationRoute(TypedErrorRoute):
    """Routes of clients that send all they show. `send_less`: what such a client can do about a body that is too large."""

    send_less: ClassVar[str]

    def bounded(self, request: Request) -> Request:
        """The request, with a body as large as a page's may be."""
        return bounded(request, running(request).settings.gateway.max_chat_size, self.send_less, 413)
