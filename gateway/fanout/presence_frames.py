"""How presence members and their changes are sent to clients (protocol section 8.4)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.frame import Frame
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.serial import Position, format_position

SYNC_PAGE: Final = 100
"""Members in one SYNC frame."""


def sync_frames(channel: str, members: Sequence[PresenceMessage]) -> list[Frame]:
    """The members as one sequence of SYNC frames; without members, one empty frame (section 8.4)."""
    sequence = secrets.token_hex(4)
    frames = []
    for start in range(0, max(1, len(members)), SYNC_PAGE):
        following = start + SYNC_PAGE
        cursor = str(following) if following < len(members) else ""
        page = list(members[start:following])
        frames.append(
            Frame(Action.SYNC, channel=channel, channel_serial=f"{sequence}:{cursor}", presence=page)
        )
    return frames


def presence_frame(channel: str, epoch: str, position: Position, events: Sequence[PresenceMessage]) -> Frame:
    """A PRESENCE frame; each event carries its own id, connection and time."""
    return Frame(
        Action.PRESENCE,
        channel=channel,
        channel_serial=format_position(position, epoch),
        timestamp=position.ms,
        presence=list(events),
    )
