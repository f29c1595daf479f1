"""The connection's rules without any I/O: frames and clock readings come in, effects come out (section 4).

One connection serves one session. Losing the socket is an ordinary event: the core says when to try again,
resumes by connection key and channelSerial, and sends unanswered frames again (REC-1, REC-4, P5).
"""

from __future__ import annotations

from collections.abc import Mapping

from selfhost_transport.client.connection.backoff import Backoff
from selfhost_transport.client.connection.effects import (
    Answered,
    Attached,
    AttachRefused,
    Drop,
    Effect,
    NeedToken,
    Received,
    Send,
    StateChanged,
)
from selfhost_transport.client.connection.outbox import Outbox, Outgoing
from selfhost_transport.client.connection.state import ChannelState, ConnectionState, StateChange
from selfhost_transport.errors import ErrorInfo, InvalidArgument, SessionClosed, TransportError
from selfhost_transport.wire.actions import Action, Flag
from selfhost_transport.wire.frame import Frame
from selfhost_transport.wire.message import Message

# Errors without a channel after which a later attempt may succeed (protocol section 2.3).
_RETRYABLE = frozenset({80000, 80002, 80003, 80017, 50001, 50002})
# Silence beyond maxIdleInterval before the socket counts as dead, unless the interval itself is shorter:
# two heartbeats at most (REC-12, section 4.3).
_IDLE_MARGIN_S = 10.0
_DEFAULT_STATE_TTL_S = 120.0
_CLOSED = ErrorInfo(104004, 400, "the client was closed before the service replied")


class ConnectionCore:
    """State of one connection and its one channel. `now` is a monotonic clock in seconds."""

    def __init__(
        self,
        channel: str,
        *,
        backoff: Backoff,
        params: Mapping[str, str] | None = None,
        outbox_limit: int = 10_000,
        connect_timeout: float = 10.0,
        attach_timeout: float = 10.0,
        renewable: bool = False,
    ) -> None:
        self.channel = channel
        self.state = ConnectionState.INITIALIZED
        self.channel_state = ChannelState.DETACHED
        # Why the state is what it is; None while all is well.
        self.reason: ErrorInfo | None = None
        self.outbox = Outbox(channel, outbox_limit)
        self.connection_id: str | None = None
        self.connection_key: str | None = None
        # As verified by the service; None is anonymous.
        self.client_id: str | None = None
        # Resume point: the newest position whose entries were handed to the application.
        self.position: str | None = None
        # The next attempt needs another token than the last one.
        self.token_refused = False
        # Seconds to wait before the next attempt, set when the socket is lost.
        self.retry_in = 0.0
        # How often CONNECTED was received on a new socket.
        self.connections = 0
        self._backoff = backoff
        self._params = dict(params or {})
        self._connect_timeout = connect_timeout
        self._attach_timeout = attach_timeout
        self._renewable = renewable
        self._attached_before = False
        self._heard_at = 0.0
        self._idle_after: float | None = None
        self._connect_by: float | None = None
        self._attach_by: float | None = None
        self._lost_at: float | None = None
        self._state_ttl = _DEFAULT_STATE_TTL_S
        # Why the service closed the socket, sent before the socket was lost.
        self._parting: ErrorInfo | None = None

    # What the application does

    def publish(self, messages: list[Message], size: int = 0) -> tuple[Outgoing, list[Effect]]:
        """Queue a publish, and send it at once when connected. `size`: of its frame, in bytes.

        Raises RateLimited, MessageTooLarge, SessionClosed, TransportError.
        """
        if self.state is ConnectionState.CLOSED:
            raise SessionClosed("the client is closed")
        if self.state is ConnectionState.FAILED:
            raise TransportError.from_info(self.reason or _CLOSED)
        outgoing = self.outbox.add(messages, size)
        if self.state is not ConnectionState.CONNECTED:
            return outgoing, []
        return outgoing, [Send(frame) for frame in self.outbox.release()]

    def close(self) -> list[Effect]:
        """End the connection for good; a live one says goodbye (protocol section 4.2)."""
        if self.state.is_final:
            return []
        farewell: list[Effect] = []
        if self.state is ConnectionState.CONNECTED:
            farewell.append(Send(Frame(Action.CLOSE)))
        self.channel_state = ChannelState.DETACHED
        return [*farewell, *self._enter(ConnectionState.CLOSED), *self._give_up(_CLOSED)]

    def reauthorise(self, token: str) -> list[Effect]:
        """Offer another token on the live connection."""
        if self.state is not ConnectionState.CONNECTED:
            return []
        return [Send(Frame(Action.AUTH, access_token=token))]

    # What the driver reports

    def dialing(self, now: float) -> list[Effect]:
        """An attempt to connect begins."""
        if self.state.is_final or self.state is ConnectionState.CONNECTED:
            raise InvalidArgument(f"a connection that is {self.state} cannot be opened")
        self._connect_by = now + self._connect_timeout
        self._lost_at = now if self._lost_at is None else self._lost_at
        return self._enter(ConnectionState.CONNECTING)

    def lost(self, error: ErrorInfo, now: float) -> list[Effect]:
        """The socket is gone, or could not be opened."""
        if self.state.is_final:
            return []
        error, self._parting = self._parting or error, None
        self._connect_by = self._attach_by = self._idle_after = None
        if self._lost_at is None:
            self._lost_at = now
        if self.channel_state is ChannelState.ATTACHED:
            self.channel_state = ChannelState.ATTACHING
        suspended = now - self._lost_at > self._state_ttl
        state = ConnectionState.SUSPENDED if suspended else ConnectionState.DISCONNECTED
        self.retry_in = self._backoff.next_delay()
        return self._enter(state, error, self.retry_in)

    def fail(self, error: ErrorInfo) -> list[Effect]:
        """No further attempt makes sense."""
        if self.state.is_final:
            return []
        self.channel_state = ChannelState.FAILED
        return [*self._enter(ConnectionState.FAILED, error), *self._give_up(error)]

    def deadline(self) -> float | None:
        """When `tick` must be called, unless something happens before."""
        idle = None if self._idle_after is None else self._heard_at + self._idle_after
        times = [time for time in (self._connect_by, self._attach_by, idle) if time is not None]
        return min(times, default=None)

    def tick(self, now: float) -> list[Effect]:
        """Handle expired deadlines."""
        if self._connect_by is not None and now >= self._connect_by:
            self._connect_by = None
            return [Drop(ErrorInfo(80000, 408, "the service did not answer in time"))]
        if self._idle_after is not None and now >= self._heard_at + self._idle_after:
            self._idle_after = None
            return [Drop(ErrorInfo(80003, 408, "the service is silent; reconnecting"))]
        if self._attach_by is not None and now >= self._attach_by:
            return self._attach(now)
        return []

    def received(self, frame: Frame, now: float) -> list[Effect]:
        """A frame came in; frames that mean nothing to a client are ignored."""
        self._heard_at = now
        match frame.action:
            case Action.MESSAGE:
                return self._on_message(frame)
            case Action.ACK | Action.NACK:
                answered: list[Effect] = [Answered(outcome) for outcome in self.outbox.resolve(frame)]
                return answered + [Send(following) for following in self.outbox.release()]
            case Action.CONNECTED:
                return self._on_connected(frame, now)
            case Action.ATTACHED if frame.channel == self.channel:
                return self._on_attached(frame)
            case Action.DETACHED if frame.channel == self.channel:
                return self._on_detached(frame, now)
            case Action.ERROR:
                return self._on_error(frame)
            case Action.DISCONNECTED:
                return self._on_disconnected(frame.error)
            case Action.AUTH:
                return [NeedToken()] if self._renewable else []
            case Action.CLOSED:
                return [Drop(ErrorInfo(80017, 400, "the service closed the connection"))]
        return []

    # Frames

    def _on_connected(self, frame: Frame, now: float) -> list[Effect]:
        details = frame.connection_details
        if details is not None:
            self.connection_key = details.connection_key or self.connection_key
            self.client_id = None if details.client_id == "*" else details.client_id
            if details.connection_state_ttl is not None:
                self._state_ttl = details.connection_state_ttl / 1000
            idle = (details.max_idle_interval or 0) / 1000
            self._idle_after = idle + min(idle, _IDLE_MARGIN_S) if idle else None
        if self.state is ConnectionState.CONNECTED:
            return []
        resumed = frame.connection_id == self.connection_id and frame.error is None
        self.connection_id = frame.connection_id
        self.connections += 1
        self.token_refused = False
        self._connect_by = self._lost_at = None
        self._backoff.reset()
        effects = self._enter(ConnectionState.CONNECTED, frame.error)
        if details is not None and details.max_frame_size:
            effects += [Answered(outcome) for outcome in self.outbox.limit_frames(details.max_frame_size)]
        # Before the attach, so that what was written is in the backlog (protocol section 4.5).
        effects += [Send(waiting) for waiting in self.outbox.repeat(resumed=resumed)]
        return effects + ([] if self.channel_state is ChannelState.FAILED else self._attach(now))

    def _on_attached(self, frame: Frame) -> list[Effect]:
        first = not self._attached_before
        continuous = not first and bool((frame.flags or 0) & Flag.RESUMED)
        self._attached_before = True
        self.channel_state = ChannelState.ATTACHED
        self._attach_by = None
        self.position = frame.channel_serial or self.position
        return [Attached(self.position or "", first, continuous, frame.params or {}, frame.error)]

    def _on_message(self, frame: Frame) -> list[Effect]:
        if frame.channel != self.channel or self.channel_state is not ChannelState.ATTACHED:
            return []
        self.position = frame.channel_serial or self.position
        return [Received(frame)]

    def _on_detached(self, frame: Frame, now: float) -> list[Effect]:
        attaching = self.channel_state is ChannelState.ATTACHING
        self.channel_state = ChannelState.ATTACHING
        if not attaching:
            return self._attach(now)
        # The service could not finish the attach: try again after the usual wait (section 5.2).
        self._attach_by = now + self._attach_timeout
        return []

    def _on_error(self, frame: Frame) -> list[Effect]:
        error = frame.error or ErrorInfo(80000, 500, "the service reported an unspecified error")
        if frame.channel == self.channel:
            self.channel_state = ChannelState.FAILED
            self._attach_by = None
            return [AttachRefused(error)]
        if frame.channel is not None:
            return []
        if _is_token_error(error) or error.status_code >= 500 or error.code in _RETRYABLE:
            return self._on_disconnected(error)
        return self.fail(error)

    def _on_disconnected(self, error: ErrorInfo | None) -> list[Effect]:
        self._parting = error or ErrorInfo(80003, 400, "the service requested a reconnect")
        if _is_token_error(self._parting):
            if not self._renewable:
                refused = "the token was refused and there is no auth_callback to renew it"
                return self.fail(ErrorInfo(40171, 401, refused, cause=self._parting))
            self.token_refused = True
        return [Drop(self._parting)]

    # Parts of the above

    def _attach(self, now: float) -> list[Effect]:
        self.channel_state = ChannelState.ATTACHING
        self._attach_by = now + self._attach_timeout
        attach = Frame(
            Action.ATTACH,
            channel=self.channel,
            channel_serial=self.position,
            params=self._params or None,
        )
        return [Send(attach)]

    def _enter(
        self, state: ConnectionState, reason: ErrorInfo | None = None, retry_in: float | None = None
    ) -> list[Effect]:
        change = StateChange(self.state, state, reason, retry_in)
        self.state, self.reason = state, reason
        return [StateChanged(change)]

    def _give_up(self, error: ErrorInfo) -> list[Effect]:
        self._connect_by = self._attach_by = self._idle_after = None
        return [Answered(outcome) for outcome in self.outbox.clear(error)]


def _is_token_error(error: ErrorInfo) -> bool:
    return 40140 <= error.code <= 40149
