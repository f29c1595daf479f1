"""Errors of the plain HTTP API: the same codes and the same shape as everywhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire.codes import Code

_LATER: Final = (429, 503)


def error_response(info: ErrorInfo) -> JSONResponse:
    """An ErrorInfo as an answer."""
    message = info.message.encode("ascii", "replace").decode().replace("\n", " ")
    headers = {"X-Ably-Errorcode": str(info.code), "X-Ably-Errormessage": message}
    headers |= retry_headers(info)
    return JSONResponse({"error": info.to_wire()}, status_code=info.status_code, headers=headers)


def retry_headers(info: ErrorInfo) -> dict[str, str]:
    """When to ask again, in whole seconds, where an answer says "later"."""
    if info.status_code not in _LATER:
        return {}
    return {"Retry-After": str(max(1, math.ceil((info.retry_after_ms or 0) / 1000)))}


def validation_error(error: RequestValidationError) -> ErrorInfo:
    """What is wrong with a body or parameter, field by field."""
    return ErrorInfo(Code.INVALID_BODY.value, 400, "; ".join(map(_problem, error.errors())))


def _problem(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "model_attributes_type" and problem["loc"] == ("body",):
        # The usual cause is curl, which calls its data a form.
        return "body: send a JSON object with the header content-type: application/json"
    return f"{'.'.join(str(part) for part in problem['loc'][1:]) or 'body'}: {problem['msg']}"
