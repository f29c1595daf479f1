"""Errors from below the providers' SDKs, which some releases let through while they read a stream."""

from __future__ import annotations

import json

import httpx
import httpx2

from agent_worker.adapters.failures import Failure


def of_transport(error: Exception) -> Failure | None:
    """What an exception of an HTTP client or of the decoding means; None: it was not the provider."""
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return Failure.UNUSABLE
    if isinstance(error, httpx2.TimeoutException | httpx.TimeoutException):
        return Failure.TIMED_OUT
    return Failure.UNREACHABLE if isinstance(error, httpx2.TransportError | httpx.TransportError) else None
