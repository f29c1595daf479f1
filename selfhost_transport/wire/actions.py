"""Action numbers and flag bits (protocol sections 3.1, 3.3, 7.1 and 8.1)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, IntFlag


class Action(IntEnum):
    """What a frame is (protocol section 3.1). Frames with other numbers are ignored by both sides."""

    HEARTBEAT = 0
    ACK = 1
    NACK = 2
    CONNECT = 3
    CONNECTED = 4
    DISCONNECT = 5
    DISCONNECTED = 6
    CLOSE = 7
    CLOSED = 8
    ERROR = 9
    ATTACH = 10
    ATTACHED = 11
    DETACH = 12
    DETACHED = 13
    PRESENCE = 14
    MESSAGE = 15
    SYNC = 16
    AUTH = 17
    ACTIVATE = 18
    OBJECT = 19
    OBJECT_SYNC = 20
    ANNOTATION = 21


ACKNOWLEDGED = frozenset({Action.MESSAGE, Action.PRESENCE, Action.ANNOTATION, Action.OBJECT})
"""Client frames that carry a msgSerial and get an ACK or NACK (protocol section 6.3)."""


class MessageAction(IntEnum):
    """What a message does to the log (protocol section 7.1)."""

    CREATE = 0
    UPDATE = 1
    DELETE = 2
    META = 3
    SUMMARY = 4
    APPEND = 5


class PresenceAction(IntEnum):
    """What a presence message says about its member (protocol section 8.1)."""

    ABSENT = 0
    PRESENT = 1
    ENTER = 2
    LEAVE = 3
    UPDATE = 4


class AnnotationAction(IntEnum):
    """Whether an annotation is added or taken back (protocol section 14.1)."""

    CREATE = 0
    DELETE = 1


class Flag(IntFlag):
    """Bits of `flags` on ATTACH and ATTACHED; those from bit 16 on are modes (protocol section 3.3)."""

    NONE = 0
    HAS_PRESENCE = 1 << 0
    HAS_BACKLOG = 1 << 1
    RESUMED = 1 << 2
    TRANSIENT = 1 << 4
    ATTACH_RESUME = 1 << 5
    HAS_OBJECTS = 1 << 7
    PRESENCE = 1 << 16
    PUBLISH = 1 << 17
    SUBSCRIBE = 1 << 18
    PRESENCE_SUBSCRIBE = 1 << 19
    ANNOTATION_PUBLISH = 1 << 21
    ANNOTATION_SUBSCRIBE = 1 << 22
    OBJECT_SUBSCRIBE = 1 << 24
    OBJECT_PUBLISH = 1 << 25


MODES_BY_NAME: dict[str, Flag] = {
    "presence": Flag.PRESENCE,
    "publish": Flag.PUBLISH,
    "subscribe": Flag.SUBSCRIBE,
    "presence_subscribe": Flag.PRESENCE_SUBSCRIBE,
    "annotation_publish": Flag.ANNOTATION_PUBLISH,
    "annotation_subscribe": Flag.ANNOTATION_SUBSCRIBE,
    "object_subscribe": Flag.OBJECT_SUBSCRIBE,
    "object_publish": Flag.OBJECT_PUBLISH,
}
"""Names of the modes in the channel param `modes`, in the order of their bits."""

DEFAULT_MODES = (
    Flag.PRESENCE | Flag.PUBLISH | Flag.SUBSCRIBE | Flag.PRESENCE_SUBSCRIBE | Flag.ANNOTATION_PUBLISH
)
"""Requested when an ATTACH names no mode: 3080192."""

ALL_MODES = Flag.ANNOTATION_SUBSCRIBE | Flag.OBJECT_SUBSCRIBE | Flag.OBJECT_PUBLISH | DEFAULT_MODES
"""Every mode bit; `flags & ALL_MODES` is the set of modes in a `flags` value."""


def modes_from_names(names: Iterable[str]) -> Flag:
    """The union of the named modes, in either case; unknown names are ignored (protocol section 5.2)."""
    modes = Flag.NONE
    for name in names:
        modes |= MODES_BY_NAME.get(name.strip().lower(), Flag.NONE)
    return modes


def modes_to_text(modes: int) -> str:
    """The comma list that names the given mode bits, as echoed in ATTACHED `params.modes`."""
    return ",".join(name for name, flag in MODES_BY_NAME.items() if modes & flag)
