"""Refusals as OpenAI's clients read them: `{"error": {message, type, param, code}}`, and nothing that they retry in vain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.responses import JSONResponse, Response

from gateway.http_api.dependencies import WholeConversationRoute
from selfhost_transport.errors import Busy, ErrorInfo, InvalidArgument
from selfhost_transport.wire.codes import Code

_FIELD: Final = re.compile(r"([A-Za-z_][\w.]*): ")
_KEPT: Final = frozenset({"retry-after", "www-authenticate"})
_RATE_LIMITED: Final = 429


def refused(
    message: str, param: str | None, code: str | None = None, *, status: int = 400
) -> InvalidArgument:
    """A request that cannot be served as it is; `param`: which field of it is the reason."""
    detail = {name: value for name, value in (("param", param), ("code", code)) if value is not None}
    return InvalidArgument(message, status_code=status, detail=detail)


def error_json(info: Mapping[str, Any], status: int) -> dict[str, Any]:
    """The body of a refusal, from the one of every other interface."""
    given = info.get("detail")
    detail: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    message = str(info.get("message") or "the request failed")
    named = _FIELD.match(message) if info.get("code") == Code.INVALID_BODY.value else None
    return {
        "message": message,
        "type": _type(status),
        "param": detail.get("param") or (named[1] if named else None),
        "code": detail.get("code") or _code(status, info.get("code")),
    }


def error_event(info: ErrorInfo, number: int) -> dict[str, Any]:
    """The event of a stream that cannot go on. Some clients read its fields, others those of `error`."""
    error = error_json(info.to_wire(), info.status_code)
    named = {name: error[name] for name in ("code", "message", "param")}
    return {"type": "error", **named, "error": error, "sequence_number": number}


def _type(status: int) -> str:
    if status == _RATE_LIMITED:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _code(status: int, code: Any) -> str | None:
    match status:
        case 401:
            return "invalid_api_key"
        case 403:
            return "insufficient_permissions"
        case 404:
            return "not_found"
        case 429:
            return "rate_limit_exceeded"
    return str(code) if code is not None else None


def _status(status: int, code: Any) -> int:
    """401 is for unknown callers; and their clients send again what is answered 409."""
    if code == Code.NOT_PERMITTED.value:
        return 403
    return 400 if status == 409 and code != Busy.code else status


class OpenAIRoute(WholeConversationRoute):
    """Routes for OpenAI's clients."""

    send_less = "; the session has what was said before: send what is new, with `previous_response_id`"

    def refusal(self, refused: JSONResponse) -> Response:
        """The error in their form."""
        info = orjson.loads(bytes(refused.body)).get("error", {})
        status = _status(refused.status_code, info.get("code"))
        kept = {name: value for name, value in refused.headers.items() if name in _KEPT}
        if status < 500 and status not in (409, _RATE_LIMITED):
            kept["x-should-retry"] = "false"
        return JSONResponse({"error": error_json(info, status)}, status, headers=kept)
