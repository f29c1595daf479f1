"""One connection of the realtime protocol, without I/O: frames and outcomes in, effects out.

Rules are those of protocol sections 4 to 6. The order of answers is this module's business: every frame that waits
for an ACK has its place in a queue, refusals included, and answers leave in that order (section 6.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from gateway.auth.authenticator import Credential, outside_token_range
from gateway.auth.rate_limits import Limits
from gateway.commands.annotations import AnnotateContext, prepare_annotations
from gateway.commands.commands import Done, LeavePresence
from gateway.commands.commands import Operation as Stored
from gateway.commands.presence import PresenceContext, prepare_presence
from gateway.commands.publishing import PublishContext, Sender, prepare
from gateway.commands.turn_commands import TurnRules
from gateway.connection_terms import Terms
from gateway.fanout.subscription import Attached
from gateway.realtime.channel_order import ChannelOrder
from gateway.realtime.effects import (
    Adjust,
    Attach,
    Authenticate,
    CloseSocket,
    Command,
    Deliver,
    Detach,
    Effect,
    SendFrame,
    Sync,
)
from gateway.realtime.pending_acks import PendingAcks
from gateway.realtime.state_frames import attached_frame, connected_frame
from selfhost_transport.errors import (
    BadRequest,
    CapabilityError,
    ErrorInfo,
    InvalidArgument,
    InvalidChannelName,
    TransportError,
    Unauthorized,
)
from selfhost_transport.store.names import joined
from selfhost_transport.store.presence import Holder
from selfhost_transport.turns.withholding import NOTHING, Hidden
from selfhost_transport.wire.actions import DEFAULT_MODES, Action, Flag, PresenceAction
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import ChannelParams, ChannelRef, parse_channel, parse_params
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.frame import AckResult, Frame, FrameError
from selfhost_transport.wire.ids import default_id_base, fingerprint

SERVED_MODES: Final = DEFAULT_MODES | Flag.ANNOTATION_SUBSCRIBE
TURNS_PARAM: Final = "turns"
MAX_CHANNELS: Final = 1000


class Phase(Enum):
    """Where a connection stands."""

    NEW = "new"
    CONNECTED = "connected"
    CLOSING = "closing"


class ChannelPhase(Enum):
    """Where a channel of a connection stands; detached ones are not kept."""

    ATTACHING = "attaching"
    ATTACHED = "attached"


@dataclass(slots=True)
class _Channel:
    ref: ChannelRef
    # Granted now, out of those that were asked for.
    modes: Flag
    asked: Flag
    # As asked for; `_permitted` says what of them is granted.
    params: ChannelParams
    # What its attachment does not get.
    hidden: Hidden = NOTHING
    # While it is being attached.
    attach: Attach | None = None

    @property
    def phase(self) -> ChannelPhase:
        """Where it stands."""
        return ChannelPhase.ATTACHED if self.attach is None else ChannelPhase.ATTACHING


class Connection:
    """The state of one socket. `rules_for` gives the turn rules of a channel, None where it is plain pub/sub.

    `holder` answers for the presence members of the connection. `hidden_from`: what a caller does not get of a channel.
    """

    __slots__ = (
        "_acks",
        "_channels",
        "_hidden_from",
        "_limits",
        "_members",
        "_order",
        "_rules_for",
        "_terms",
        "connection_id",
        "credential",
        "holder",
        "inherits_members",
        "phase",
    )

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
        self.connection_id = connection_id
        self.credential = credential
        self.phase = Phase.NEW
        self._terms = terms
        self._rules_for = rules_for
        self._hidden_from = hidden_from
        self._limits = limits
        self.holder = holder or Holder(connection_id, owner="", node="")
        # Whether an earlier socket of this connection may have entered members.
        self.inherits_members = False
        # Members entered by this socket: (session, client id); hardly any connection has some.
        self._members: set[tuple[str, str]] | None = None
        self._channels: dict[str, _Channel] = {}
        self._acks = PendingAcks()
        self._order = ChannelOrder()

    @property
    def postponed(self) -> int:
        """Frames that wait for earlier ones of their channel."""
        return self._order.waiting

    @property
    def unanswered(self) -> int:
        """Frames whose answer has not left yet."""
        return len(self._acks)

    @property
    def has_members(self) -> bool:
        """Whether the connection has presence members, as far as this socket knows."""
        return self.inherits_members or bool(self._members)

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
        ticket = self._acks.register(frame.msg_serial or 0) if frame.action in _OPERATIONS else 0
        full = frame.channel
        if full is not None and (self._order.holds(full) or self._has_to_wait(full, frame)):
            self._order.postpone(full, frame, ticket)
            return []
        return self._take(frame, ticket)

    def _has_to_wait(self, full: str, frame: Frame) -> bool:
        channel = self._channels.get(full)
        if channel is not None and channel.phase is ChannelPhase.ATTACHING:
            return True
        # Another ATTACH of an attached channel changes it in place: nothing before it is judged or delivered anew.
        changes_place = frame.action == Action.DETACH or (frame.action == Action.ATTACH and channel is None)
        return changes_place and self._order.is_busy(full)

    def _take(self, frame: Frame, ticket: int) -> list[Effect]:
        if frame.action in _OPERATIONS:
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
            return self._fail_channel(error.channel, error.info) + self._go_on(error.channel)
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
        self.credential = credential
        effects: list[Effect] = []
        names = list(self._channels)
        for channel in list(self._channels.values()):
            effects += self._grant_anew(channel)
        effects.append(SendFrame(self._connected(key)))
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
        return self._settle(ticket, done.result) + self._go_on(self._order.end(ticket))

    def refused(self, ticket: int, error: ErrorInfo) -> list[Effect]:
        """The operation of a Command was not carried out."""
        return self._settle(ticket, error) + self._go_on(self._order.end(ticket))

    def has_pending(self, ticket: int) -> bool:
        """Whether the answer to an operation has not left yet."""
        return self._acks.has_pending(ticket)

    def attach_ready(self, full: str, attached: Attached) -> list[Effect]:
        """The hub holds the channel's frames and knows where delivery starts."""
        channel = self._attaching(full)
        channel.attach = None
        return [SendFrame(self._attached(channel, attached)), Deliver(full), *self._go_on(full)]

    def attach_failed(self, full: str, error: ErrorInfo) -> list[Effect]:
        """The attach could not be finished; DETACHED makes the client try again (section 5.2)."""
        self._attaching(full)
        del self._channels[full]
        return [
            Detach(full),
            SendFrame(Frame(Action.DETACHED, channel=full, error=error)),
            *self._go_on(full),
        ]

    def adjusted(self, full: str, attached: Attached) -> list[Effect]:
        """The position of an attachment that was attached again, or that lost continuity (section 5.4)."""
        channel = self._channels.get(full)
        if channel is None or self.phase is not Phase.CONNECTED:
            return []
        sync: list[Effect] = [Sync(full)] if attached.presence else []
        return [SendFrame(self._attached(channel, attached)), *sync]

    # Frames of the connection

    def _on_heartbeat(self, frame: Frame) -> list[Effect]:
        # The Java SDK pings without an id. No SDK answers a heartbeat, so this has an end.
        return [SendFrame(Frame(Action.HEARTBEAT, id=frame.id))]

    def _on_close(self, frame: Frame) -> list[Effect]:
        self.phase = Phase.CLOSING
        effects: list[Effect] = []
        # Operations that were sent before it still take effect; attaching for their sake makes no difference any more.
        for waiting, ticket in self._order.clear():
            if waiting.action in _OPERATIONS:
                effects += self._take(waiting, ticket)
        return [*effects, *self._leave(None), SendFrame(Frame(Action.CLOSED)), CloseSocket(final=True)]

    def _on_disconnect(self, frame: Frame) -> list[Effect]:
        self.lost()
        return [CloseSocket()]

    def _on_auth(self, frame: Frame) -> list[Effect]:
        if not frame.access_token:
            return self.fail(Unauthorized("an AUTH frame needs an access token").info)
        return [Authenticate(frame.access_token)]

    # Channels

    def _on_attach(self, frame: Frame) -> list[Effect]:
        full = frame.channel
        if full is None:
            return self.fail(error_info(Code.BAD_REQUEST, "ATTACH needs a channel"))
        known = self._channels.get(full)
        try:
            ref, params, asked = self._resolve(full, frame)
        except TransportError as error:
            return self._fail_channel(full, error.info)
        modes = self._granted(ref, asked)
        # An unchanged ATTACH where deltas are sent: one could not be decoded, and what follows its base is sent anew.
        lost_base = known is not None and params.delta and (known.modes, known.params) == (modes, params)
        if known is not None and not lost_base:
            known.modes, known.asked, known.params = modes, asked, params
            return [self._adjust(known, answer=True, resumed=frame.channel_serial is not None)]
        if known is None and len(self._channels) >= MAX_CHANNELS:
            reason = (
                f"a connection may attach {MAX_CHANNELS} channels; detach some, or open another connection"
            )
            return self._fail_channel(full, error_info(Code.TOO_MANY_CHANNELS, reason))
        # A re-attach is not rewound, whatever its params say (section 5.3).
        again = bool((frame.flags or 0) & Flag.ATTACH_RESUME or frame.channel_serial)
        wanted = self._permitted(ref.name, replace(params, rewind=None) if again else params)
        hidden = self._hidden_from(self.credential, ref.name)
        attach = Attach(ref, modes, wanted, frame.channel_serial or None, hidden)
        self._channels[full] = _Channel(ref, modes, asked, params, hidden, attach)
        dropped: list[Effect] = [Detach(full)] if lost_base else []
        return [*dropped, attach]

    def _on_detach(self, frame: Frame) -> list[Effect]:
        full = frame.channel
        if full is None:
            return self.fail(error_info(Code.BAD_REQUEST, "DETACH needs a channel"))
        channel = self._channels.get(full)
        detached = SendFrame(Frame(Action.DETACHED, channel=full))
        if channel is None:
            return [detached]
        del self._channels[full]
        return [Detach(full), *self._leave(channel.ref.name), detached]

    def _resolve(self, full: str, frame: Frame) -> tuple[ChannelRef, ChannelParams, Flag]:
        """What an ATTACH asks for: the channel, its params, and modes. Raises CapabilityError, InvalidChannelName."""
        ref = parse_channel(full)
        given = {**ref.params, **(frame.params or {})}
        params = parse_params(given)
        rules = self._rules_for(ref.name)
        if TURNS_PARAM in given and rules is not None:
            recognised = {**params.recognised, TURNS_PARAM: rules.agent}
            params = replace(params, recognised=recognised)
        if not self.credential.capability.modes(ref.name):
            raise CapabilityError(f"the credentials do not permit attaching channel {ref.name[:128]!r}")
        return ref, params, params.requested_modes(frame.flags)

    def _granted(self, ref: ChannelRef, asked: Flag) -> Flag:
        served = SERVED_MODES if ref.filter is None else Flag.SUBSCRIBE
        return asked & self.credential.capability.modes(ref.name) & served

    def _permitted(self, name: str, params: ChannelParams) -> ChannelParams:
        """Params without those that the present credentials do not permit."""
        if params.occupancy is None or self.credential.capability.allows(Operation.CHANNEL_METADATA, name):
            return params
        recognised = {key: value for key, value in params.recognised.items() if key != "occupancy"}
        return replace(params, occupancy=None, recognised=recognised)

    def _adjust(self, channel: _Channel, *, answer: bool, resumed: bool = True) -> Adjust:
        params = self._permitted(channel.ref.name, channel.params)
        return Adjust(channel.ref.full, channel.modes, params, answer, resumed, channel.hidden)

    def _grant_anew(self, channel: _Channel) -> list[Effect]:
        """Apply new rights to an attachment, wider or narrower: of what was asked for, what they permit (section 4.7)."""
        full, name = channel.ref.full, channel.ref.name
        modes = self._granted(channel.ref, channel.asked)
        if not self.credential.capability.modes(name) or (channel.modes and not modes):
            info = CapabilityError(f"the new token does not permit channel {name[:128]!r}").info
            return self._fail_channel(full, info)
        hidden = self._hidden_from(self.credential, name)
        unchanged = (modes, hidden) == (channel.modes, channel.hidden)
        gained = modes & ~channel.modes
        channel.modes, channel.hidden = modes, hidden
        if channel.attach is not None:
            if unchanged:
                return []
            # The read in progress was chosen by the rights it had.
            params = self._permitted(name, channel.attach.params)
            channel.attach = replace(channel.attach, modes=modes, hidden=hidden, params=params)
            return [Detach(full), channel.attach]
        if unchanged and channel.params.occupancy is None:
            return []
        # Lost modes end silently; new ones are announced to the client, members included.
        return [self._adjust(channel, answer=bool(gained))]

    def _fail_channel(self, full: str, info: ErrorInfo) -> list[Effect]:
        effects: list[Effect] = []
        channel = self._channels.get(full)
        # An attach in flight is ended by its result, which finds nothing to attach.
        if channel is not None:
            del self._channels[full]
            effects += [Detach(full), *self._leave(channel.ref.name)]
        return [*effects, SendFrame(Frame(Action.ERROR, channel=full, error=info))]

    def _attaching(self, full: str) -> _Channel:
        channel = self._channels.get(full)
        if channel is None or channel.phase is not ChannelPhase.ATTACHING:
            raise RuntimeError("an attach ended that was not in progress")
        return channel

    def is_attaching(self, full: str) -> bool:
        """Whether the result of an attach is still wanted."""
        channel = self._channels.get(full)
        return channel is not None and channel.phase is ChannelPhase.ATTACHING

    # Publishing

    def _operate(self, frame: Frame, ticket: int) -> list[Effect]:
        """Begin what a frame asks to be stored, or refuse it."""
        try:
            operation = _PREPARE[frame.action](self, frame)
        except TransportError as error:
            return self._settle(ticket, error.info)
        if frame.channel is not None:
            self._order.begin(ticket, frame.channel)
        return [Command(ticket, operation)]

    def _message(self, frame: Frame) -> Stored:
        return prepare(self._publish_context(frame, frame.msg_serial or 0), frame.messages or [])

    def _publish_context(self, frame: Frame, serial: int) -> PublishContext:
        session, modes, base = self._addressed(frame, serial)
        if (frame.params or {}).get("_forceNack") == "true":
            raise InvalidArgument("refused on request, by the _forceNack param", code=Code.FORCED_NACK)
        return PublishContext(
            session=session,
            sender=Sender(self.credential, self.connection_id),
            rules=self._rules_for(session),
            max_size=self._terms.max_message_size,
            limits=self._limits,
            id_base=base,
            repeat_id=joined("frame", base, fingerprint(frame)),
            may_publish=None if modes is None else bool(modes & Flag.PUBLISH),
            hidden=self._hidden_from(self.credential, session),
        )

    def _addressed(self, frame: Frame, serial: int) -> tuple[str, Flag | None, str]:
        """Where a frame goes: the session, the modes of its attachment if there is one, and the base of its ids."""
        if frame.channel is None:
            raise InvalidChannelName("the frame needs a channel")
        channel = self._channels.get(frame.channel)
        ref = parse_channel(frame.channel) if channel is None else channel.ref
        # A derived channel is for subscribing only, attached or not.
        modes = Flag.NONE if ref.filter is not None else None if channel is None else channel.modes
        return ref.name, modes, default_id_base(self.connection_id, serial)

    def _annotation(self, frame: Frame) -> Stored:
        return prepare_annotations(
            self._annotate_context(frame, frame.msg_serial or 0), frame.annotations or []
        )

    def _annotate_context(self, frame: Frame, serial: int) -> AnnotateContext:
        session, modes, base = self._addressed(frame, serial)
        return AnnotateContext(
            session=session,
            sender=Sender(self.credential, self.connection_id),
            modes=modes,
            max_size=self._terms.max_message_size,
            id_base=base,
            repeat_id=joined("frame", base, fingerprint(frame)),
            limits=self._limits,
        )

    # Presence

    def _presence(self, frame: Frame) -> Stored:
        operation = prepare_presence(
            self._presence_context(frame, frame.msg_serial or 0), frame.presence or []
        )
        members = self._members = self._members or set()
        for change in operation.changes:
            member = (operation.session, change.client_id or "")
            if change.action is PresenceAction.LEAVE:
                members.discard(member)
            else:
                members.add(member)
        return operation

    def _presence_context(self, frame: Frame, serial: int) -> PresenceContext:
        session, modes, base = self._addressed(frame, serial)
        return PresenceContext(
            session=session,
            credential=self.credential,
            holder=self.holder,
            modes=modes,
            max_size=self._terms.max_message_size,
            id_base=base,
            repeat_id=joined("frame", base, fingerprint(frame)),
        )

    def _on_sync(self, frame: Frame) -> list[Effect]:
        channel = self._channels.get(frame.channel or "")
        if channel is None or channel.phase is not ChannelPhase.ATTACHED:
            return []
        return [Sync(channel.ref.full)] if channel.modes & Flag.PRESENCE_SUBSCRIBE else []

    def _leave(self, session: str | None) -> list[Effect]:
        """Take the connection's members out of a session no channel of it is attached to any more, or of all."""
        if session is not None and any(channel.ref.name == session for channel in self._channels.values()):
            return []
        members = self._members or set()
        gone = {member for member in members if session in (None, member[0])}
        if not gone and not self.inherits_members:
            return []
        self._members = members - gone
        # No frame waits for the outcome.
        return [Command(0, LeavePresence(session, self.holder))]

    def _on_unsupported(self, frame: Frame) -> list[Effect]:
        kind = Action(frame.action).name
        info = error_info(Code.NOT_PERMITTED, f"{kind} frames are not supported by this service")
        return self._refuse(frame.msg_serial or 0, info)

    def _refuse(self, msg_serial: int, info: ErrorInfo) -> list[Effect]:
        return self._settle(self._acks.register(msg_serial), info)

    def _settle(self, ticket: int, outcome: AckResult | ErrorInfo) -> list[Effect]:
        """Note an outcome; send the replies that may leave now."""
        return [SendFrame(frame) for frame in self._acks.settle(ticket, outcome)]

    def _connected(self, key: str, error: ErrorInfo | None = None) -> Frame:
        return connected_frame(self.connection_id, key, self.credential, self._terms, error)

    def _attached(self, channel: _Channel, attached: Attached) -> Frame:
        params = self._permitted(channel.ref.name, channel.params)
        return attached_frame(channel.ref.full, channel.modes, params, attached)


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
# Each asks for something to be stored, and is answered.
_PREPARE: Final[Mapping[int, Callable[[Connection, Frame], Stored]]] = {
    Action.MESSAGE: Connection._message,
    Action.PRESENCE: Connection._presence,
    Action.ANNOTATION: Connection._annotation,
}
_OPERATIONS: Final = frozenset(_PREPARE)
_ORDERED: Final = _OPERATIONS | {Action.ATTACH, Action.DETACH}
