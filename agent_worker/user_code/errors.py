"""What an agent raises to tell people, in its own words, why a turn failed."""

from __future__ import annotations

from typing import ClassVar

from selfhost_transport.errors import ErrorInfo, LeaseLost, TransportError
from selfhost_transport.turns.values import whole_characters

STREAM_ERROR = 104008
"""The default code of a failed run (ai-transport section 12)."""

GENERIC = ErrorInfo(
    code=STREAM_ERROR,
    status_code=500,
    message="the agent could not finish this turn; send the message again",
)
"""The text that clients get for an exception not meant for them (TRN-19)."""

MAX_MESSAGE = 4_000
"""Maximum length of an error's text for clients."""

_DEADLINE = "the turn took longer than its deadline of {seconds:g} s and was stopped"
_SILENCE = "the agent wrote nothing for {seconds:g} s, and the turn was stopped"


class AgentError(TransportError):
    """Ends the turn with `error`; clients see the code and the message.

    Without a `code`, one that says `status_code` (429: 42900); for 500, 104008. `again` says whether another attempt may
    succeed; None leaves that to the agent's `retry_errors`.
    """

    code: ClassVar[int] = STREAM_ERROR

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        status_code: int = 500,
        again: bool | None = None,
        cause: ErrorInfo | None = None,
    ) -> None:
        if code is None:
            # On the wire the status is read from the code.
            code = STREAM_ERROR if status_code == 500 else status_code * 100
        super().__init__(message, code=code, status_code=status_code, cause=cause)
        self.again = again


def client_error(error: BaseException) -> ErrorInfo:
    """The error as the turn's terminal shows it: an exception of unknown origin shows the generic text (TRN-19).

    Never fails: an unusable error of the application is replaced by the generic one.
    """
    if isinstance(error, BaseExceptionGroup):
        error = _said_in(error) or error
    if not isinstance(error, TransportError) or isinstance(error, LeaseLost):
        return GENERIC
    try:
        info = error.info
        code, status = int(info.code), int(info.status_code)
        message = whole_characters(str(info.message))[:MAX_MESSAGE]
    except BaseException:
        return GENERIC
    if not (0 < code < 1_000_000 and 100 <= status < 600):
        return GENERIC
    return ErrorInfo(code=code, status_code=status, message=message or GENERIC.message)


def described(error: BaseException) -> str:
    """An error for the log; its own text may fail."""
    try:
        return repr(error)[:MAX_MESSAGE]
    except BaseException:
        return f"<{type(error).__name__}, which cannot be shown>"


def _said_in(group: BaseExceptionGroup[BaseException]) -> TransportError | None:
    """The first error in a group that was meant for people: a task group of the agent's own wraps it."""
    left: list[BaseException] = [*group.exceptions]
    while left:
        error = left.pop(0)
        if isinstance(error, BaseExceptionGroup):
            left += error.exceptions
        elif isinstance(error, TransportError) and not isinstance(error, LeaseLost):
            return error
    return None


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
