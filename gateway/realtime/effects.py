"""What a connection's core wants done. The driver (`driver.py`) carries effects out in order and feeds results back in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from gateway.commands.commands import ClientOperation
from selfhost_transport.turns.withholding import NOTHING, Hidden
from selfhost_transport.wire.actions import Flag
from selfhost_transport.wire.channel import ChannelParams, ChannelRef
from selfhost_transport.wire.frame import Frame


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Write a frame to the socket."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Command:
    """Run an operation. Feed the outcome back with this ticket; outcomes may arrive in any order.

    `others`: tickets of further frames that the operation answers, each with one serial of its own.
    """

    ticket: int
    operation: ClientOperation
    others: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Attach:
    """Begin receiving a channel and hold what arrives; answer with `attach_ready` or `attach_failed`.

    `resume_from`: the last channelSerial the client saw. `modes`: granted. `hidden`: what it does not get.
    """

    channel: ChannelRef
    modes: Flag
    params: ChannelParams
    resume_from: str | None = None
    hidden: Hidden = NOTHING


@dataclass(frozen=True, slots=True)
class Deliver:
    """Begin delivery on a channel whose ATTACHED has been sent: backlog, held frames, live."""

    channel: str


@dataclass(frozen=True, slots=True)
class Adjust:
    """The attachment stays where it is with other modes, params or rights; `answer`: send ATTACHED at its position."""

    channel: str
    modes: Flag
    params: ChannelParams
    answer: bool
    resumed: bool = True
    hidden: Hidden = NOTHING


@dataclass(frozen=True, slots=True)
class Sync:
    """Send the members of an attached channel as a new sequence of SYNC frames (section 8.4)."""

    channel: str


@dataclass(frozen=True, slots=True)
class Detach:
    """Stop delivering a channel at once."""

    channel: str


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Verify a token that came in-band; answer with `reauthenticated` or `authentication_failed`."""

    token: str


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Close the socket once everything written has left it. `final`: the client will not resume."""

    final: bool = False


Effect: TypeAlias = (
    SendFrame | Command | Attach | Deliver | Adjust | Sync | Detach | Authenticate | CloseSocket
)
