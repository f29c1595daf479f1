"""One connection of the realtime protocol, without I/O: frames and outcomes in, effects out.

Rules are those of protocol sections 4 to 6. The order of answers is this module's business: every frame that waits
for an ACK has its place in a queue, refusals included, and answers leave in that order (section 6.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from gateway.auth.authenticator import Credential, outside_token_range
from gateway.auth.rate_limits import Limits
from gateway.commands.commands import Done
from gateway.commands.turn_commands import TurnRules
from gateway.connection_terms import Terms
from gateway.fanout.subscription import AttachResult
from gateway.realtime.attachments import Attachments
from gateway.realtime.command_order import CommandOrder
from gateway.realtime.context import ConnectionContext
from gateway.realtime.effects import Authenticate, CloseSocket, Command, Effect, SendFrame
from gateway.realtime.members import Members
from gateway.realtime.requests import STORED_ACTIONS, Requests
from gateway.realtime.state_frames import connected_frame
from selfhost_transport.errors import BadRequest, ErrorInfo, SessionErased, TransportError, Unauthorized
from selfhost_transport.store.presence import Holder
from selfhost_transport.turns.withholding import NOTHING, Hidden
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.frame import AckResult, Frame, FrameError


class Phase(Enum):
    """Where a connection stands."""

    NEW = "new"
    CONNECTED = "connected"
    CLOSING = "closing"


class Connection:
    """The state of one socket. `rules_for` gives the turn rules of a channel, None where it is plain pub/sub.

    `holder` answers for the presence members of the connection. `hidden_from`: what a caller does not get of a channel.
    """

    __slots__ = ("_attachments", "_context", "_order", "_requests", "members", "phase")

    def __init__(
        self,
        connection_id: str,
        credential: Credential,
        terms: Terms,
        rules_for: Callable[[str], TurnRules | None],
        holder: Holder | None = None,
        limits: Limits | None = None,
        hidden_from: Callable[[Credential, str], Hidden] = lambda credential, channel: NOTHING,
    ) -> None:
        holder = holder or Holder(connection_id, owner="", node="")
        context = ConnectionContext(connection_id, credential, terms, rules_for, hidden_from, holder, limits)
        self.phase = Phase.NEW
        self._context = context
        self.members = Members()
        self._attachments = Attachments(context, self.members)
        self._requests = Requests(context, self._attachments, self.members)
        self._order = CommandOrder()

    @property
    def connection_id(self) -> str:
        """Its public id."""
        return self._context.connection_id

    @property
    def credential(self) -> Credential:
        """Whose it is, and with which rights at present."""
        return self._context.credential

    @property
    def holder(self) -> Holder:
        """Who answers for its presence members."""
        return self._context.holder

    @property
    def postponed(self) -> int:
        """Frames that wait for earlier ones of their channel."""
        return self._order.waiting

    @property
    def unanswered(self) -> int:
        """Frames whose answer has not left yet."""
        return len(self._order)

    # The connection as a whole

    def open(self, key: str, error: ErrorInfo | None = None) -> list[Effect]:
        """Accept the socket: CONNECTED. `error`: why a resume failed. Raises RuntimeError when already open."""
        if self.phase is not Phase.NEW:
            raise RuntimeError(f"a connection that is {self.phase.value} cannot be opened")
        self.phase = Phase.CONNECTED
        return [SendFrame(self._connected(key, error))]

    def receive(self, frame: Frame) -> list[Effect]:
        """One frame from the client. Frames after the end, and unknown ones, are ignored."""
        if self.phase is Phase.NEW:
            raise RuntimeError("a frame arrived before the connection was opened")
        if self.phase is Phase.CLOSING:
            return []
        if frame.action in _ORDERED:
            return self._in_order(frame)
        handler = _HANDLERS.get(frame.action)
        return [] if handler is None else handler(self, frame)

    def _in_order(self, frame: Frame) -> list[Effect]:
        """A frame that takes effect behind the earlier ones of its channel."""
        ticket = self._order.register(frame.msg_serial or 0) if frame.action in STORED_ACTIONS else 0
        full = frame.channel
        if full is not None and (self._order.holds(full) or self._has_to_wait(full, frame)):
            self._order.postpone(full, frame, ticket)
            return []
        return self._take(frame, ticket)

    def _has_to_wait(self, full: str, frame: Frame) -> bool:
        if self._attachments.is_attaching(full):
            return True
        # Another ATTACH of an attached channel changes it in place: nothing before it is judged or delivered anew.
        changes_place = frame.action == Action.DETACH or (
            frame.action == Action.ATTACH and not self._attachments.knows(full)
        )
        return changes_place and self._order.is_busy(full)

    def _take(self, frame: Frame, ticket: int) -> list[Effect]:
        if frame.action in STORED_ACTIONS:
            return self._operate(frame, ticket)
        return _HANDLERS[frame.action](self, frame)

    def _go_on(self, full: str | None) -> list[Effect]:
        """Take the frames of a channel that waited, as far as they need not wait any longer."""
        effects: list[Effect] = []
        while full is not None and self.phase is Phase.CONNECTED:
            frame = self._order.peek(full)
            if frame is None or self._has_to_wait(full, frame):
                break
            effects += self._take(*self._order.pop(full))
        return effects

    def receive_malformed(self, error: BadRequest) -> list[Effect]:
        """A message of the socket that is no frame; the connection continues where the protocol has an answer."""
        if self.phase is not Phase.CONNECTED:
            return []
        if isinstance(error, FrameError) and error.needs_nack:
            return self._refuse(error.msg_serial or 0, error.info)
        if isinstance(error, FrameError) and error.channel is not None:
            return self._attachments.fail(error.channel, error.info) + self._go_on(error.channel)
        return self.fail(error.info)

    def fail(self, error: ErrorInfo) -> list[Effect]:
        """End the connection for good: ERROR without channel."""
        self.lost()
        return [SendFrame(Frame(Action.ERROR, error=error)), CloseSocket(final=True)]

    def disconnect(self, error: ErrorInfo) -> list[Effect]:
        """Ask the client to come back and resume (section 4.4)."""
        if self.phase is Phase.CLOSING:
            return []
        self.lost()
        return [SendFrame(Frame(Action.DISCONNECTED, error=error)), CloseSocket()]

    def lost(self) -> None:
        """The socket is gone: there is nothing more to say. What waits was not answered: the client sends it again."""
        self.phase = Phase.CLOSING
        self._order.clear()

    def request_token(self) -> list[Effect]:
        """Ask the client for a new token before the present one expires (section 4.7)."""
        return [SendFrame(Frame(Action.AUTH))] if self.phase is Phase.CONNECTED else []

    def reauthenticated(self, credential: Credential, key: str) -> list[Effect]:
        """A token that came in-band was good: its rights count now. Another identity ends the connection."""
        if self.phase is not Phase.CONNECTED:
            return []
        if (credential.app_id, credential.identity) != (self.credential.app_id, self.credential.identity):
            reason = "the new token is for another application or clientId; open a new connection for it"
            return self.fail(error_info(Code.INCOMPATIBLE_CREDENTIALS, reason))
        self._context.credential = credential
        names = self._attachments.names()
        effects = [*self._attachments.grant_anew(), SendFrame(self._connected(key))]
        # What waited for the attach of a channel that failed.
        for full in names:
            effects += self._go_on(full)
        return effects

    def authentication_failed(self, error: TransportError) -> list[Effect]:
        """A token that came in-band was refused."""
        return self.fail(outside_token_range(error).info) if self.phase is Phase.CONNECTED else []

    # Results of effects

    def committed(self, ticket: int, done: Done) -> list[Effect]:
        """The operation of a Command is in the store."""
        return self._resolve(ticket, done.result)

    def refused(self, ticket: int, error: ErrorInfo) -> list[Effect]:
        """The operation of a Command was not carried out."""
        return self._resolve(ticket, error)

    def has_pending(self, ticket: int) -> bool:
        """Whether the answer to an operation has not left yet."""
        return self._order.has_pending(ticket)

    def attach_ready(self, full: str, attached: AttachResult) -> list[Effect]:
        """The hub holds the channel's frames and knows where delivery starts."""
        return [*self._attachments.ready(full, attached), *self._go_on(full)]

    def attach_failed(self, full: str, error: ErrorInfo) -> list[Effect]:
        """The attach could not be finished; the client tries again, unless the session is no more."""
        if error.code == SessionErased.code:
            return self.channel_ended(full, error)
        return [*self._attachments.failed(full, error), *self._go_on(full)]

    def channel_ended(self, full: str, error: ErrorInfo) -> list[Effect]:
        """The session of a channel is no more: attaching again does not help."""
        return (
            [*self._attachments.fail(full, error), *self._go_on(full)]
            if self._attachments.knows(full)
            else []
        )

    def adjusted(self, full: str, attached: AttachResult) -> list[Effect]:
        """The position of an attachment that was attached again, or that lost continuity (section 5.4)."""
        return self._attachments.adjusted(full, attached) if self.phase is Phase.CONNECTED else []

    # Frames of the connection

    def _on_heartbeat(self, frame: Frame) -> list[Effect]:
        # The Java SDK pings without an id. No SDK answers a heartbeat, so this has an end.
        return [SendFrame(Frame(Action.HEARTBEAT, id=frame.id))]

    def _on_close(self, frame: Frame) -> list[Effect]:
        self.phase = Phase.CLOSING
        effects: list[Effect] = []
        # Operations that were sent before it still take effect; attaching for their sake makes no difference any more.
        for waiting, ticket in self._order.clear():
            if waiting.action in STORED_ACTIONS:
                effects += self._take(waiting, ticket)
        leave = self.members.leave(None, self.holder)
        if leave is not None:
            # No frame waits for the outcome.
            effects.append(Command(0, leave))
        return [*effects, SendFrame(Frame(Action.CLOSED)), CloseSocket(final=True)]

    def _on_disconnect(self, frame: Frame) -> list[Effect]:
        self.lost()
        return [CloseSocket()]

    def _on_auth(self, frame: Frame) -> list[Effect]:
        if not frame.access_token:
            return self.fail(Unauthorized("an AUTH frame needs an access token").info)
        return [Authenticate(frame.access_token)]

    # Channels

    def _on_attach(self, frame: Frame) -> list[Effect]:
        if frame.channel is None:
            return self.fail(error_info(Code.BAD_REQUEST, "ATTACH needs a channel"))
        return self._attachments.attach(frame.channel, frame)

    def _on_detach(self, frame: Frame) -> list[Effect]:
        if frame.channel is None:
            return self.fail(error_info(Code.BAD_REQUEST, "DETACH needs a channel"))
        return self._attachments.detach(frame.channel)

    def _on_sync(self, frame: Frame) -> list[Effect]:
        return self._attachments.sync(frame.channel or "")

    # What is stored

    def _operate(self, frame: Frame, ticket: int) -> list[Effect]:
        """Begin what a frame asks to be stored, or refuse it."""
        try:
            operation = self._requests.operation(frame)
        except TransportError as error:
            return self._resolve(ticket, error.info)
        if frame.channel is not None:
            self._order.begin(ticket, frame.channel)
        return [Command(ticket, operation)]

    def _on_unsupported(self, frame: Frame) -> list[Effect]:
        kind = Action(frame.action).name
        info = error_info(Code.NOT_PERMITTED, f"{kind} frames are not supported by this service")
        return self._refuse(frame.msg_serial or 0, info)

    def _refuse(self, msg_serial: int, info: ErrorInfo) -> list[Effect]:
        return self._resolve(self._order.register(msg_serial), info)

    def _resolve(self, ticket: int, outcome: AckResult | ErrorInfo) -> list[Effect]:
        """Note an outcome: send the replies that may leave now, take the frames that waited for it."""
        replies, freed = self._order.resolve(ticket, outcome)
        effects: list[Effect] = [SendFrame(frame) for frame in replies]
        return effects if freed is None else effects + self._go_on(freed)

    def _connected(self, key: str, error: ErrorInfo | None = None) -> Frame:
        return connected_frame(self.connection_id, key, self.credential, self._context.terms, error)


_HANDLERS: Final[Mapping[int, Callable[[Connection, Frame], list[Effect]]]] = {
    Action.HEARTBEAT: Connection._on_heartbeat,
    Action.CLOSE: Connection._on_close,
    Action.DISCONNECT: Connection._on_disconnect,
    Action.ATTACH: Connection._on_attach,
    Action.DETACH: Connection._on_detach,
    Action.SYNC: Connection._on_sync,
    Action.OBJECT: Connection._on_unsupported,
    Action.AUTH: Connection._on_auth,
}
_ORDERED: Final = STORED_ACTIONS | {Action.ATTACH, Action.DETACH}
