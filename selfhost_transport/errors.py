"""The one tree of errors; each carries what the Ably wire calls an ErrorInfo.

    TransportError
     +-- BadRequest              400xx  the caller sent something that cannot be accepted
     |    +-- InvalidArgument    40003
     |    +-- MessageTooLarge    40009
     |    +-- InvalidChannelName 40010
     |    +-- Conflict           40031  an id used before, with another body
     |    +-- TurnEnded          40003  writing to a turn that has its terminal
     |    +-- TurnSuspended      104013 working on a turn that waits for people
     |    +-- TurnStarted        104014 starting a turn a second time
     |    +-- StepOpen           104015 one step of a turn is open at a time
     |    +-- SteerWaiting       104016 completing a turn over a message sent into it
     |    +-- ConversationTooLong 104018 more of a session than a worker reads at once
     +-- Unauthorized            401xx  who you are, or what you may do
     |    +-- TokenError         4014x  a new token would help
     |    +-- CapabilityError    40160
     +-- CancelDenied            40300  the agent's hook refused the cancel
     +-- NotFound                40400
     |    +-- SessionErased      104019 the session was erased, and takes nothing for a while
     +-- Busy                    40900  policy `reject`: the session has an active turn
     +-- RateLimited             429xx
     +-- ServiceError            500xx  ours or Redis' fault; a retry may help
     |    +-- StoreUnavailable   50003
     |    +-- StoreFull          50004
     |    +-- Overloaded         50005  more work than capacity; nothing was stored, send again later
     |    +-- StoreUnsuitable    50000  Redis is too old or badly configured; no retry helps
     +-- ConnectionFailed       800xx
     |    +-- UntrustedCertificate 80000
     +-- ContinuityLost          9000x / 104006
     |    +-- ResumePointLost           90003  stored messages do not reach the session's history
     +-- LeaseLost               104012 another worker owns the turn, or it has ended
     +-- TurnHeld                104017 adopting a turn that another process holds
     +-- TurnNotStarted          104010 the turn was not started in time
     +-- Discarded               40033  the application took a send back
     +-- SessionClosed           104004

The numbers are those of protocol section 12 where the meaning is the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What travels in an `error` field: a code, an HTTP-like status, a sentence that says what to do."""

    code: int
    status_code: int
    message: str
    href: str | None = None
    detail: Mapping[str, Any] | None = None
    cause: ErrorInfo | None = field(default=None)

    @property
    def retry_after_ms(self) -> int | None:
        """When to send the same again; None where that is not known."""
        after = (self.detail or {}).get("retryAfterMs")
        return after if isinstance(after, int) else None

    def to_wire(self) -> dict[str, Any]:
        """The map that goes on the wire; absent fields are left out."""
        # It may quote what the caller sent, halves of surrogate pairs included, which no answer can carry.
        message = self.message.encode("utf-8", "replace").decode()
        wire: dict[str, Any] = {"code": self.code, "statusCode": self.status_code, "message": message}
        if self.href is not None:
            wire["href"] = self.href
        if self.detail is not None:
            wire["detail"] = dict(self.detail)
        if self.cause is not None:
            wire["cause"] = self.cause.to_wire()
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> ErrorInfo:
        """Read an `error` map leniently: a peer may leave out anything."""
        cause = wire.get("cause")
        return cls(
            code=int(wire.get("code") or 50000),
            status_code=int(wire.get("statusCode") or 500),
            message=str(wire.get("message") or "unknown error"),
            href=wire.get("href"),
            detail=wire.get("detail"),
            cause=cls.from_wire(cause) if isinstance(cause, Mapping) else None,
        )


class TransportError(Exception):
    """Root of the tree. `retryable`: the same call may succeed later without a change by the caller."""

    code: ClassVar[int] = 50000
    status_code: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        status_code: int | None = None,
        detail: Mapping[str, Any] | None = None,
        cause: ErrorInfo | None = None,
    ) -> None:
        super().__init__(message)
        self.info = ErrorInfo(
            code=type(self).code if code is None else code,
            status_code=type(self).status_code if status_code is None else status_code,
            message=message,
            detail=detail,
            cause=cause,
        )

    @classmethod
    def from_info(cls, info: ErrorInfo) -> TransportError:
        """The exception for an ErrorInfo received from a peer, by code, then by status."""
        chosen = _BY_CODE.get(info.code) or _by_range(info.code) or _by_status(info.status_code)
        if chosen is InvalidArgument and info.status_code == TurnEnded.status_code:
            # They share a number on the wire; the status distinguishes them.
            chosen = TurnEnded
        if chosen is ContinuityLost and LogRewound.matches(info):
            chosen = LogRewound
        error = chosen(info.message)
        error.info = info
        return error


class BadRequest(TransportError):
    """The request cannot be accepted as it is."""

    code = 40000
    status_code = 400


class InvalidArgument(BadRequest):
    """A value is out of range, of the wrong type, or used in the wrong state."""

    code = 40003


class MessageTooLarge(BadRequest):
    """The publish, or the message it would produce, exceeds the size limit."""

    code = 40009


class InvalidChannelName(BadRequest):
    """The session name breaks the rules of protocol section 5.1."""

    code = 40010


class Conflict(BadRequest):
    """An id was used before with another body."""

    code = 40031
    status_code = 409


class TurnEnded(BadRequest):
    """The turn has its terminal; nothing more can be written to it."""

    code = 40003
    status_code = 409


class TurnSuspended(BadRequest):
    """The turn waits for people; the last missing answer resumes it."""

    code = 104013
    status_code = 409


class TurnStarted(BadRequest):
    """The turn was started before; it can be adopted, not started again."""

    code = 104014
    status_code = 409


class StepOpen(BadRequest):
    """A step of the turn is open; nothing else can be started, given up or ended meanwhile."""

    code = 104015
    status_code = 409


class SteerWaiting(BadRequest):
    """A message was sent into the turn that no step has answered yet."""

    code = 104016
    status_code = 409


class ConversationTooLong(BadRequest):
    """A conversation goes further back than is read at once; ask for its last messages only."""

    code = 104018
    status_code = 413


class Unauthorized(TransportError):
    """Credentials are missing or wrong."""

    code = 40101
    status_code = 401


class TokenError(Unauthorized):
    """The token is expired, revoked or malformed; clients renew it."""

    code = 40140


class CapabilityError(Unauthorized):
    """The credentials do not permit the operation."""

    code = 40160


class CancelDenied(TransportError):
    """The agent that works on the turn refused to have it cancelled by this requester."""

    code = 40300
    status_code = 403


class NotFound(TransportError):
    """No such message, turn, key or path."""

    code = 40400
    status_code = 404


class SessionErased(NotFound):
    """An operator erased the session; nothing can be sent to its name for a while."""

    code = 104019
    status_code = 410


class Busy(TransportError):
    """Policy `reject`: the session has an active turn, named in `detail`."""

    code = 40900
    status_code = 409
    retryable = True


class RateLimited(TransportError):
    """A configured limit was reached; nothing was stored."""

    code = 42910
    status_code = 429
    retryable = True


class ServiceError(TransportError):
    """A failure on the service's side."""

    retryable = True


class _StoreError(ServiceError):
    """A failure of Redis. `str(error)` is for operators: which Redis, and its reply. Clients get the less detailed `info`."""

    client_message: ClassVar[str]

    def __init__(self, message: str, *, client_message: str | None = None) -> None:
        super().__init__(message)
        self.info = replace(
            self.info, message=type(self).client_message if client_message is None else client_message
        )


class StoreUnavailable(_StoreError):
    """Redis cannot be reached or did not answer in time."""

    code = 50003
    status_code = 503
    client_message = "the session store is unavailable; try again"


class StoreFull(_StoreError):
    """Redis refuses writes because `maxmemory` is reached."""

    code = 50004
    status_code = 503
    client_message = "the session store is full: nothing was stored; try again later"


class Overloaded(ServiceError):
    """More is asked for than can be done in time: refused at once, nothing was stored.

    `detail`: `reason`, `retryAfterMs`, and `waiting`, the turns that wait for a worker, where that is the reason.
    """

    code = 50005
    status_code = 503


class StoreUnsuitable(_StoreError):
    """Redis is too old or is configured so that promises cannot be kept."""

    retryable = False
    client_message = "the session store refused the operation; see the log of the service"


class ConnectionFailed(TransportError):
    """The connection is closed, failed or refused."""

    code = 80000
    status_code = 400
    retryable = True


class UntrustedCertificate(ConnectionFailed):
    """The certificate of a gateway is not signed by a trusted authority, or is for another name."""

    retryable = False


class ContinuityLost(TransportError):
    """Entries may have been missed; a snapshot must be read."""

    code = 90003
    status_code = 404


class LogRewound(ContinuityLost):
    """Redis lost the last writes, as after a fail-over: what a client saw of them is no longer valid."""

    DETAIL: ClassVar[Mapping[str, Any]] = {"wentBack": True}

    def __init__(self, message: str) -> None:
        super().__init__(message, detail=self.DETAIL)

    @staticmethod
    def matches(info: ErrorInfo | None) -> bool:
        """Whether an error received from the service means this."""
        return info is not None and bool((info.detail or {}).get("wentBack"))


class ResumePointLost(ContinuityLost):
    """Between the messages an application has stored and those the session still has, some may be missing."""


class LeaseLost(TransportError):
    """The turn was cancelled, ended, or taken over; this writer may not write for it."""

    code = 104012
    status_code = 409


class TurnHeld(TransportError):
    """Another process holds the turn; it can be adopted once that one detaches or loses its lease."""

    code = 104017
    status_code = 409
    retryable = True


class TurnNotStarted(TransportError):
    """The turn was not started within the time given."""

    code = 104010
    status_code = 504
    retryable = True


class Discarded(TransportError):
    """The application took a send back before it had left."""

    code = 40033
    status_code = 400


class SessionClosed(TransportError):
    """The client or session was closed by its owner."""

    code = 104004
    status_code = 400


_BY_CODE: dict[int, type[TransportError]] = {
    error.code: error
    for error in (
        InvalidArgument, MessageTooLarge, InvalidChannelName, Conflict, CapabilityError, CancelDenied, NotFound,
        Busy, RateLimited, StoreUnavailable, StoreFull, Overloaded, ConnectionFailed, ContinuityLost, LeaseLost,
        SessionClosed, TurnSuspended, TurnStarted, StepOpen, SteerWaiting, TurnHeld, TurnNotStarted, Discarded,
        ConversationTooLong, SessionErased,
    )
}  # fmt: skip


# What the codes of a range have in common; the status distinguishes codes with several meanings.
_BY_RANGE: tuple[tuple[range, type[TransportError]], ...] = (
    (range(40140, 40150), TokenError),
    (range(40160, 40170), CapabilityError),
    # What the SDKs say of a token that they could not get or renew.
    (range(40170, 40180), TokenError),
    (range(40100, 40200), Unauthorized),
    (range(40400, 40500), NotFound),
    (range(42900, 43000), RateLimited),
    (range(50000, 60000), ServiceError),
    (range(80020, 80021), ContinuityLost),
    (range(80000, 80100), ConnectionFailed),
    (range(90003, 90006), ContinuityLost),
    (range(104006, 104007), ContinuityLost),
)


def _by_range(code: int) -> type[TransportError] | None:
    return next((found for codes, found in _BY_RANGE if code in codes), None)


def _by_status(status: int) -> type[TransportError]:
    match status:
        case 401:
            return Unauthorized
        case 404:
            return NotFound
        case 429:
            return RateLimited
    if 400 <= status < 500:
        return BadRequest
    return ServiceError if status >= 500 else TransportError


_FORMER_NAMES: Final = {"WentBack": LogRewound, "SeamLost": ResumePointLost}
"""For one release."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Former names of errors."""
        error = _FORMER_NAMES.get(name)
        if error is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        warnings.warn(f"{name} is deprecated: use {error.__name__}", DeprecationWarning, stacklevel=2)
        return error
