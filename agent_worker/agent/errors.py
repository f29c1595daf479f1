"""What an agent raises to tell people, in its own words, why a turn failed."""

from __future__ import annotations

from typing import ClassVar

from selfhost_transport.errors import ErrorInfo, LeaseLost, TransportError

STREAM_ERROR = 104008
"""The default code of a failed run (ai-transport section 12)."""

GENERIC = ErrorInfo(
    code=STREAM_ERROR,
    status_code=500,
    message="the agent could not finish this turn; send the message again",
)
"""What clients are told of an exception that was not meant for them (TRN-19)."""

_DEADLINE = "the turn took longer than its deadline of {seconds:g} s and was stopped"
_SILENCE = "the agent wrote nothing for {seconds:g} s, and the turn was stopped"


class AgentError(TransportError):
    """Ends the turn with `error`; clients see the code and the message (TRN-19).

    `again` says whether another attempt may succeed; None leaves that to the agent's `retry_errors`.
    """

    code: ClassVar[int] = STREAM_ERROR

    def __init__(
        self,
        message: str,
        *,
        code: int = STREAM_ERROR,
        status_code: int = 500,
        again: bool | None = None,
        cause: ErrorInfo | None = None,
    ) -> None:
        super().__init__(message, code=code, status_code=status_code, cause=cause)
        self.again = again


def told_to_clients(error: BaseException) -> ErrorInfo:
    """The error as the turn's terminal shows it: an exception of unknown origin tells nothing (TRN-19)."""
    if isinstance(error, TransportError) and not isinstance(error, LeaseLost):
        return error.info
    return GENERIC


def deadline_error(seconds: float) -> ErrorInfo:
    """The terminal of a turn that was active for too long (TRN-23)."""
    return ErrorInfo(code=STREAM_ERROR, status_code=504, message=_DEADLINE.format(seconds=seconds))


def silence_error(seconds: float) -> ErrorInfo:
    """The terminal of a turn without output for too long."""
    return ErrorInfo(code=STREAM_ERROR, status_code=504, message=_SILENCE.format(seconds=seconds))


def wants_another_attempt(error: BaseException, default: bool) -> bool:
    """Whether an attempt that failed so should be repeated, if attempts are left (TRN-9)."""
    if isinstance(error, AgentError) and error.again is not None:
        return error.again
    return default
