"""Errors of the plain HTTP API: the same codes and the same shape as everywhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.error_headers import error_headers

_MODEL: Final = re.compile(r"[A-Z][A-Za-z]*In")
"""The name of a class of ours: where a body may be one of several, its path of a fault has it."""


def error_response(info: ErrorInfo) -> JSONResponse:
    """An ErrorInfo as an answer."""
    return JSONResponse({"error": info.to_wire()}, status_code=info.status_code, headers=error_headers(info))


def validation_error(error: RequestValidationError, content_type: str = "") -> ErrorInfo:
    """The faults of a body or parameter, field by field."""
    # Of a body that may be one of several, each says what it misses.
    problems = dict.fromkeys(_problem(problem, content_type) for problem in error.errors())
    return ErrorInfo(Code.INVALID_BODY.value, 400, "; ".join(problems))


def _problem(problem: Mapping[str, Any], content_type: str) -> str:
    where = [str(part) for part in problem["loc"][1:] if not _MODEL.fullmatch(str(part))]
    if problem["type"] == "model_attributes_type" and problem["loc"][0] == "body" and not where:
        # The usual cause is curl, which calls its data a form.
        sent = f"; {content_type[:100]!r} was sent" if content_type else ""
        return f"body: send a JSON object with the header content-type: application/json, once{sent}"
    return f"{'.'.join(where) or 'body'}: {_message(problem)}"


def _message(problem: Mapping[str, Any]) -> str:
    """In the words of a caller, who does not know of pydantic."""
    if problem["type"] == "extra_forbidden":
        return "there is no such field"
    return str(problem["msg"]).removeprefix("Value error, ")
