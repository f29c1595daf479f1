"""Errors of the `openai` package."""

from __future__ import annotations

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
