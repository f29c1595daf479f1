"""Errors of the `openai` package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import openai

from agent_worker.adapters.failures import Failure, classify
from agent_worker.adapters.transport_failures import of_transport


def failure_of(error: Exception) -> Failure | None:
    """What an exception means; None: it does not come from the provider."""
    if isinstance(error, openai.APITimeoutError):
        return Failure.TIMED_OUT
    if isinstance(error, openai.APIConnectionError):
        return Failure.UNREACHABLE
    if isinstance(error, openai.APIError):
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        return classify(status, error.code, error.type)
    return of_transport(error)


def raise_error_in(error: object, request: Any) -> NoReturn:
    """Raise what the `openai` package raises for an error in the middle of a stream: APIError."""
    message = error.get("message") if isinstance(error, Mapping) else None
    raise openai.APIError(
        message if isinstance(message, str) and message else "An error occurred during streaming",
        request=request,
        body=error,
    )
