"""Which bucket a key goes to when a deployment gets more buckets. Reads names only; the families are those of keys.py."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from selfhost_transport.errors import StoreUnsuitable

# `<letter>:<session>`, `<letter>:<part>:<session>`, and `<letter>:<position>:<index>:<session>`.
_OF_SESSION: Final = frozenset({b"s", b"p", b"l", b"h", b"g", b"a", b"open", b"w", b"r", b"k", b"j"})
_OF_ITEM: Final = frozenset({b"i", b"c", b"e", b"t", b"f", b"y", b"u"})
_OF_MESSAGE: Final = frozenset({b"m", b"x", b"v", b"b", b"z"})


class KeyMove(Enum):
    """What has to be done with a key."""

    # As it is, into the bucket of its session, or the one with the same number.
    WHOLE = auto()
    # By its items: those of a stream that name a session; members of a sorted set that are sessions, or pairs with one.
    STREAM = auto()
    SESSIONS = auto()
    PAIRS = auto()
    # Into each of the buckets that the old one becomes.
    EVERYWHERE = auto()
    # A connection with presence members, with all that says where it is held.
    CONNECTION = auto()
    # Not at all: it follows from another key, or lives for a minute only.
    NOT = auto()


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """`bucket`: where it goes as a whole."""

    way: KeyMove
    bucket: int = 0


_BY_NAME: Final = {
    b"leases": KeyMove.PAIRS,
    b"deadlines": KeyMove.PAIRS,
    b"retention": KeyMove.SESSIONS,
    b"used": KeyMove.SESSIONS,
    b"dead": KeyMove.STREAM,
    b"stats": KeyMove.WHOLE,
    b"dropped": KeyMove.WHOLE,
    b"exporters": KeyMove.EVERYWHERE,
    b"nodes": KeyMove.NOT,
    b"gone": KeyMove.NOT,
    b"swept": KeyMove.NOT,
}
_BY_FAMILY: Final = {
    b"q": KeyMove.STREAM,
    b"ended": KeyMove.STREAM,
    b"undelivered": KeyMove.STREAM,
    b"o": KeyMove.CONNECTION,
    b"d": KeyMove.NOT,
    b"pace": KeyMove.NOT,
    b"idle": KeyMove.NOT,
    b"called": KeyMove.NOT,
}
# Of the keys outside the buckets: what belongs to processes that have ended, and what the target decides anew.
_LEFT: Final = re.compile(rb"(agents|duty|statistics):|(format|deployment|migration)$")
_HELD: Final = b"held:"


def bucket_of(session: bytes, buckets: int) -> int:
    """As `store.keys.bucket_of`, of the name's bytes."""
    return binascii.crc_hqx(session, 0) % buckets


def place_in_bucket(rest: bytes, bucket: int, buckets: int) -> KeyPlace:
    """Where a key goes of which `rest` follows its bucket's base. Raises StoreUnsuitable for a family that is not known."""
    family, colon, name = rest.partition(b":")
    if not colon and family in _BY_NAME:
        return KeyPlace(_BY_NAME[family], bucket)
    if colon and family in _BY_FAMILY:
        return KeyPlace(_BY_FAMILY[family], bucket)
    if colon and family in _OF_SESSION:
        return KeyPlace(KeyMove.WHOLE, bucket_of(name, buckets))
    _, colon, session = name.partition(b":")
    if colon and family in _OF_MESSAGE:
        _, colon, session = session.partition(b":")
    if colon and family in _OF_ITEM | _OF_MESSAGE:
        return KeyPlace(KeyMove.WHOLE, bucket_of(session, buckets))
    raise StoreUnsuitable(f"a key that this version does not know: {rest[:80].decode(errors='replace')!r}")


def place_outside(rest: bytes, *, other_buckets: bool) -> KeyPlace:
    """The same for a key outside the buckets. `other_buckets`: where a connection is held is written anew."""
    if _LEFT.match(rest) or (other_buckets and rest.startswith(_HELD)):
        return KeyPlace(KeyMove.NOT)
    return KeyPlace(KeyMove.WHOLE)
