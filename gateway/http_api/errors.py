"""Errors of the plain HTTP API: the same codes and the same shape as everywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.error_headers import error_headers


def error_response(info: ErrorInfo) -> JSONResponse:
    """An ErrorInfo as an answer."""
    return JSONResponse({"error": info.to_wire()}, status_code=info.status_code, headers=error_headers(info))


def validation_error(error: RequestValidationError) -> ErrorInfo:
    """The faults of a body or parameter, field by field."""
    return ErrorInfo(Code.INVALID_BODY.value, 400, "; ".join(map(_problem, error.errors())))


def _problem(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "model_attributes_type" and problem["loc"] == ("body",):
        # The usual cause is curl, which calls its data a form.
        return "body: send a JSON object with the header content-type: application/json"
    return f"{'.'.join(str(part) for part in problem['loc'][1:]) or 'body'}: {_message(problem)}"


def _message(problem: Mapping[str, Any]) -> str:
    """In the words of a caller, who does not know of pydantic."""
    if problem["type"] == "extra_forbidden":
        return "there is no such field"
    return str(problem["msg"]).removeprefix("Value error, ")
