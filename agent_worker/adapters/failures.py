"""What can go wrong at a model provider, in words that are safe to show to the people in a session (TRN-19).

A provider's own message may quote keys, account names or other people's text, so it never leaves the process.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import Enum
from typing import Final

from agent_worker.user_code.errors import AgentError

logger = logging.getLogger(__name__)


class Failure(Enum):
    """Status and sentence of the turn's error; `again` is False where the same request can only fail again."""

    RATE_LIMITED = (
        429,
        "the model provider is rate-limiting this agent; send the message again in a moment",
        None,
    )
    OVERLOADED = 503, "the model provider is overloaded; send the message again in a moment", None
    FAILED = 502, "the model provider failed; send the message again", None
    UNREACHABLE = 502, "the model provider cannot be reached; send the message again", None
    TIMED_OUT = 504, "the model provider did not answer in time; send the message again", None
    INCOMPLETE = 502, "the model's answer broke off before its end; send the message again", None
    UNUSABLE = 502, "the model's answer could not be used; send the message again", None
    STOPPED = 500, "the agent stopped its own answer before the end; send the message again", False
    TOO_LONG = 400, "the conversation is too long for the model; start a new one", False
    BLOCKED = 400, "the model provider's content filter stopped the answer; ask in another way", False
    REJECTED = 500, "the model provider rejected the agent's request; tell the agent's operator", False
    NO_ACCESS = 500, "the agent may not use its model; its operator has to check the provider's key", False
    EXHAUSTED = 500, "the agent's budget at its model provider is used up; tell its operator", False

    def __init__(self, status_code: int, message: str, again: bool | None) -> None:
        self.status_code = status_code
        self.message = message
        self.again = again


# Machine-readable codes and types of the providers' error bodies; they say more than the status.
_BY_CODE: Final = {
    "context_length_exceeded": Failure.TOO_LONG,
    "request_too_large": Failure.TOO_LONG,
    "insufficient_quota": Failure.EXHAUSTED,
    "billing_error": Failure.EXHAUSTED,
    "content_filter": Failure.BLOCKED,
    "content_policy_violation": Failure.BLOCKED,
    "invalid_api_key": Failure.NO_ACCESS,
    "authentication_error": Failure.NO_ACCESS,
    "permission_error": Failure.NO_ACCESS,
    "rate_limit_exceeded": Failure.RATE_LIMITED,
    "rate_limit_error": Failure.RATE_LIMITED,
    "overloaded_error": Failure.OVERLOADED,
    "timeout_error": Failure.TIMED_OUT,
    "server_error": Failure.FAILED,
    "api_error": Failure.FAILED,
    "invalid_prompt": Failure.REJECTED,
    "invalid_request_error": Failure.REJECTED,
    "not_found_error": Failure.REJECTED,
}
_BY_STATUS: Final = {
    401: Failure.NO_ACCESS,
    402: Failure.EXHAUSTED,
    403: Failure.NO_ACCESS,
    408: Failure.TIMED_OUT,
    413: Failure.TOO_LONG,
    429: Failure.RATE_LIMITED,
    503: Failure.OVERLOADED,
    504: Failure.TIMED_OUT,
    529: Failure.OVERLOADED,
}


def classify(status: int | None, *codes: str | None) -> Failure:
    """The failure for an error of a provider: by the first code that is known, then by the HTTP status."""
    for code in codes:
        if code in _BY_CODE:
            return _BY_CODE[code]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Failure.REJECTED if status is not None and 400 <= status < 500 else Failure.FAILED


def codes_in(body: object) -> list[str]:
    """The code and the type in a provider's error body, which may be wrapped in `error`."""
    found = _error_in(body)
    return [value for name in ("code", "type") if isinstance(value := found.get(name), str)]


def message_in(body: object) -> str:
    """The text of an error body; for classification, never for display."""
    message = _error_in(body).get("message")
    return message if isinstance(message, str) else ""


def _error_in(body: object) -> Mapping[str, object]:
    inner = body.get("error") if isinstance(body, Mapping) else None
    found = inner if isinstance(inner, Mapping) else body
    return found if isinstance(found, Mapping) else {}


def agent_error(failure: Failure, cause: Exception | None = None) -> AgentError:
    """The error to raise in a turn; what the operator needs to know of `cause` goes to the log."""
    if cause is not None:
        logger.warning(
            "provider.failed failure=%s error=%s status=%s code=%s request=%s",
            failure.name.lower(), type(cause).__name__, getattr(cause, "status_code", None),
            getattr(cause, "code", None) or getattr(cause, "type", None), getattr(cause, "request_id", None),
        )  # fmt: skip
        logger.debug("provider.failed error=%s", cause)
    return AgentError(failure.message, status_code=failure.status_code, again=failure.again)
