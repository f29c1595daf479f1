"""Positions in a session's log, and the serials that name them on the wire (protocol section 16, P1).

A position is a Redis stream id. On the wire it is zero-padded, so that comparing the strings compares the
positions, by code units and by `localeCompare` alike (rule 2). It carries the session's epoch id, so that
a serial of another session or of a recreated one is recognised (rule 8).
"""

from __future__ import annotations

import re
import secrets
import string
from functools import lru_cache
from typing import ClassVar, NamedTuple

from selfhost_transport.errors import InvalidArgument

MAX_COUNTER = 999
"""Entries of one millisecond; the next one takes the next millisecond (rule 3)."""
MAX_INDEX = 999
"""Highest index of an item within one publish; a publish with more is refused with 40034 (rule 3)."""
MAX_MS = 10**14 - 1
EPOCH_LENGTH = 10
EPOCH_ALPHABET = string.ascii_lowercase + string.digits

_SERIAL = re.compile(r"([0-9]{14})-([0-9]{3})@([a-z0-9]{10})(?::([0-9]{3}))?")
_MAX_DIGITS = 20
_EPOCH = re.compile(r"[a-z0-9]{10}")


class _Fields(NamedTuple):
    ms: int
    counter: int


class Position(_Fields):
    """Where an entry stands in its session's order: a stream id, `ms` since the epoch and a counter.

    A tuple, because gateways compare and hash several for every notification.
    """

    __slots__ = ()

    ZERO: ClassVar[Position]

    @classmethod
    def parse_id(cls, text: str) -> Position:
        """Read a stream id such as `1763000000000-0`. Raises InvalidArgument."""
        ms, _, counter = text.partition("-")
        digits = text.isascii() and ms.isdecimal() and counter.isdecimal()
        if not digits or len(ms) > _MAX_DIGITS or len(counter) > _MAX_DIGITS:
            raise InvalidArgument(f"not a stream id: {text[:64]!r}")
        return cls(int(ms), int(counter))

    @classmethod
    def of_name(cls, name: bytes) -> Position:
        """Read a stream id that Redis itself wrote. Raises ValueError for anything else."""
        ms, counter = name.split(b"-")
        return cls(int(ms), int(counter))

    @property
    def stream_id(self) -> str:
        """The Redis form, `ms-counter`, without padding."""
        return f"{self.ms}-{self.counter}"

    @property
    def before(self) -> Position:
        """The last position that is older, whether or not there is an entry at it."""
        return Position(self.ms, self.counter - 1) if self.counter else Position(self.ms - 1, MAX_COUNTER)


Position.ZERO = Position(0, 0)


def new_epoch() -> str:
    """An epoch id for a session that is used for the first time: 10 random characters of `[a-z0-9]`."""
    # One number for all of them: each send of a turn brings an epoch along, should its session be new.
    left, letters = secrets.randbelow(len(EPOCH_ALPHABET) ** EPOCH_LENGTH), ""
    for _ in range(EPOCH_LENGTH):
        left, letter = divmod(left, len(EPOCH_ALPHABET))
        letters += EPOCH_ALPHABET[letter]
    return letters


@lru_cache(maxsize=128)
def format_position(position: Position, epoch: str) -> str:
    """The channelSerial of a position, 29 characters. Raises InvalidArgument where it would not fit."""
    if not (0 <= position.ms <= MAX_MS and 0 <= position.counter <= MAX_COUNTER):
        raise InvalidArgument(f"position {position.stream_id} does not fit in a serial")
    _check_epoch(epoch)
    return f"{position.ms:014d}-{position.counter:03d}@{epoch}"


@lru_cache(maxsize=4096)
def _check_epoch(epoch: str) -> None:
    if _EPOCH.fullmatch(epoch) is None:
        raise InvalidArgument(f"an epoch is {EPOCH_LENGTH} characters of [a-z0-9], not {epoch[:64]!r}")


def format_item(position: Position, epoch: str, index: int) -> str:
    """The serial of the `index`-th item published at a position, 33 characters. Raises InvalidArgument."""
    if not 0 <= index <= MAX_INDEX:
        raise InvalidArgument(f"item index {index} is outside 0..{MAX_INDEX}")
    return f"{format_position(position, epoch)}:{index:03d}"


def parse_position(text: str) -> tuple[Position, str, int | None]:
    """Read a channelSerial or an item serial: position, epoch, and the index of an item serial.

    Compare positions with positions, never the strings of the two kinds (rule 6). Raises InvalidArgument.
    """
    match = _SERIAL.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"not a serial of this service: {text[:64]!r}")
    index = match[4]
    return Position(int(match[1]), int(match[2])), match[3], None if index is None else int(index)
