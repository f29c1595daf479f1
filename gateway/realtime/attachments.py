"""The channels that one connection is attached to, or attaches. No I/O (protocol section 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from gateway.fanout.subscription import AttachResult
from gateway.realtime.context import ConnectionContext
from gateway.realtime.effects import Adjust, Attach, Command, Deliver, Detach, Effect, SendFrame, Sync
from gateway.realtime.members import Members
from gateway.realtime.state_frames import attached_frame
from selfhost_transport.errors import CapabilityError, ErrorInfo, TransportError
from selfhost_transport.turns.withholding import NOTHING, Hidden
from selfhost_transport.wire.actions import DEFAULT_MODES, Action, Flag
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import ChannelParams, ChannelRef, parse_channel, parse_params
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.frame import Frame

SERVED_MODES: Final = DEFAULT_MODES | Flag.ANNOTATION_SUBSCRIBE
TURNS_PARAM: Final = "turns"
MAX_CHANNELS: Final = 1000


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


class Attachments:
    """Channels by the name that the client writes. Members leave a session with its last channel."""

    __slots__ = ("_channels", "_context", "_members")

    def __init__(self, context: ConnectionContext, members: Members) -> None:
        self._context = context
        self._members = members
        self._channels: dict[str, _Channel] = {}

    def names(self) -> list[str]:
        """The channels, those that are being attached included."""
        return list(self._channels)

    def knows(self, full: str) -> bool:
        """Whether a channel is attached, or being attached."""
        return full in self._channels

    def is_attaching(self, full: str) -> bool:
        """Whether the result of an attach is still wanted."""
        channel = self._channels.get(full)
        return channel is not None and channel.phase is ChannelPhase.ATTACHING

    def address(self, full: str) -> tuple[ChannelRef, Flag | None]:
        """A channel, and the modes of its attachment; None where it has none. Raises InvalidChannelName."""
        channel = self._channels.get(full)
        ref = parse_channel(full) if channel is None else channel.ref
        # A derived channel is for subscribing only, attached or not.
        if ref.filter is not None:
            return ref, Flag.NONE
        return ref, None if channel is None else channel.modes

    def attach(self, full: str, frame: Frame) -> list[Effect]:
        """An ATTACH: begin to attach the channel, change it in place, or refuse it."""
        known = self._channels.get(full)
        try:
            ref, params, asked = self._resolve(full, frame)
        except TransportError as error:
            return self.fail(full, error.info)
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
            return self.fail(full, error_info(Code.TOO_MANY_CHANNELS, reason))
        # A re-attach is not rewound, whatever its params say (section 5.3).
        again = bool((frame.flags or 0) & Flag.ATTACH_RESUME or frame.channel_serial)
        wanted = self._permitted(ref.name, replace(params, rewind=None) if again else params)
        hidden = self._context.hidden_from(ref.name)
        attach = Attach(ref, modes, wanted, frame.channel_serial or None, hidden)
        self._channels[full] = _Channel(ref, modes, asked, params, hidden, attach)
        dropped: list[Effect] = [Detach(full)] if lost_base else []
        return [*dropped, attach]

    def detach(self, full: str) -> list[Effect]:
        """A DETACH; also of a channel that is not attached."""
        detached = SendFrame(Frame(Action.DETACHED, channel=full))
        channel = self._channels.pop(full, None)
        return [detached] if channel is None else [Detach(full), *self._leave(channel.ref.name), detached]

    def fail(self, full: str, info: ErrorInfo) -> list[Effect]:
        """End a channel with an error: ERROR with the channel."""
        # An attach in flight is ended by its result, which finds nothing to attach.
        channel = self._channels.pop(full, None)
        ended: list[Effect] = [] if channel is None else [Detach(full), *self._leave(channel.ref.name)]
        return [*ended, SendFrame(Frame(Action.ERROR, channel=full, error=info))]

    def grant_anew(self) -> list[Effect]:
        """Apply new rights to all attachments."""
        effects: list[Effect] = []
        for channel in list(self._channels.values()):
            effects += self._grant_anew(channel)
        return effects

    def sync(self, full: str) -> list[Effect]:
        """A SYNC: send the members again, where they are sent at all."""
        channel = self._channels.get(full)
        if channel is None or channel.phase is not ChannelPhase.ATTACHED:
            return []
        return [Sync(channel.ref.full)] if channel.modes & Flag.PRESENCE_SUBSCRIBE else []

    # Results of attaching

    def ready(self, full: str, attached: AttachResult) -> list[Effect]:
        """The channel's frames are held, and it is known where delivery starts."""
        channel = self._attaching(full)
        channel.attach = None
        return [SendFrame(self._attached(channel, attached)), Deliver(full)]

    def failed(self, full: str, error: ErrorInfo) -> list[Effect]:
        """The attach could not be finished; DETACHED makes the client try again (section 5.2)."""
        self._attaching(full)
        del self._channels[full]
        return [Detach(full), SendFrame(Frame(Action.DETACHED, channel=full, error=error))]

    def adjusted(self, full: str, attached: AttachResult) -> list[Effect]:
        """The position of an attachment that was attached again, or that lost continuity (section 5.4)."""
        channel = self._channels.get(full)
        if channel is None:
            return []
        sync: list[Effect] = [Sync(full)] if attached.presence else []
        return [SendFrame(self._attached(channel, attached)), *sync]

    def _attaching(self, full: str) -> _Channel:
        channel = self._channels.get(full)
        if channel is None or channel.phase is not ChannelPhase.ATTACHING:
            raise RuntimeError("an attach ended that was not in progress")
        return channel

    # Rights and params

    def _resolve(self, full: str, frame: Frame) -> tuple[ChannelRef, ChannelParams, Flag]:
        """What an ATTACH asks for: the channel, its params, and modes. Raises CapabilityError, InvalidChannelName."""
        ref = parse_channel(full)
        given = {**ref.params, **(frame.params or {})}
        params = parse_params(given)
        rules = self._context.rules_for(ref.name)
        if TURNS_PARAM in given and rules is not None:
            recognised = {**params.recognised, TURNS_PARAM: rules.agent}
            params = replace(params, recognised=recognised)
        if not self._context.credential.capability.modes(ref.name):
            raise CapabilityError(f"the credentials do not permit attaching channel {ref.name[:128]!r}")
        return ref, params, params.requested_modes(frame.flags)

    def _granted(self, ref: ChannelRef, asked: Flag) -> Flag:
        served = SERVED_MODES if ref.filter is None else Flag.SUBSCRIBE
        return asked & self._context.credential.capability.modes(ref.name) & served

    def _permitted(self, name: str, params: ChannelParams) -> ChannelParams:
        """Params without those that the present credentials do not permit."""
        if params.occupancy is None or self._context.credential.capability.allows(
            Operation.CHANNEL_METADATA, name
        ):
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
        if not self._context.credential.capability.modes(name) or (channel.modes and not modes):
            info = CapabilityError(f"the new token does not permit channel {name[:128]!r}").info
            return self.fail(full, info)
        hidden = self._context.hidden_from(name)
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

    def _leave(self, session: str) -> list[Effect]:
        """Take the connection's members out of a session that no channel of it is attached to any more."""
        if any(channel.ref.name == session for channel in self._channels.values()):
            return []
        operation = self._members.leave(session, self._context.holder)
        # No frame waits for the outcome.
        return [] if operation is None else [Command(0, operation)]

    def _attached(self, channel: _Channel, attached: AttachResult) -> Frame:
        params = self._permitted(channel.ref.name, channel.params)
        return attached_frame(channel.ref.full, channel.modes, params, attached)
