"""Errors of the plain HTTP API: the same codes and the same shape as everywhere else."""

from __future__ import annotations

from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire.codes import Code


def error_response(info: ErrorInfo) -> JSONResponse:
    """An ErrorInfo as an answer."""
    message = info.message.encode("ascii", "replace").decode().replace("\n", " ")
    headers = {"X-Ably-Errorcode": str(info.code), "X-Ably-Errormessage": message}
    return JSONResponse({"error": info.to_wire()}, status_code=info.status_code, headers=headers)


def validation_error(error: RequestValidationError) -> ErrorInfo:
    """What is wrong with a body or parameter, field by field."""
    problems = [
        f"{'.'.join(str(part) for part in problem['loc'][1:]) or 'body'}: {problem['msg']}"
        for problem in error.errors()
    ]
    return ErrorInfo(Code.INVALID_BODY.value, 400, "; ".join(problems))
