"""Which bucket a key goes to when a deployment gets more buckets. Reads names only; the families are those of keys.py."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from selfhost_transport.errors import StoreUnsuitable
from selfhost_transport.store.keys import session_in


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
    # The same, of a key that is copied as it is.
    COPIES = auto()
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
    # Names a digest: it does not say which bucket it belongs to.
    b"erased": KeyMove.COPIES,
}
# Of the keys outside the buckets: what belongs to processes that have ended, and what the target decides anew.
_LEFT: Final = re.compile(rb"(agents|duty|statistics):|(format|deployment|migration)$")
_HELD: Final = b"held:"


def bucket_of(session: bytes, buckets: int) -> int:
    """As `store.keys.bucket_of`, of the name's bytes."""
    return binascii.crc_hqx(session, 0) % buckets


def place_in_bucket(rest: bytes, bucket: int, buckets: int) -> KeyPlace:
    """Where a key goes of which `rest` follows its bucket's base. Raises StoreUnsuitable for a family that is not known."""
    family, colon, _ = rest.partition(b":")
    if not colon and family in _BY_NAME:
        return KeyPlace(_BY_NAME[family], bucket)
    if colon and family in _BY_FAMILY:
        return KeyPlace(_BY_FAMILY[family], bucket)
    session = session_in(rest)
    if session is not None:
        return KeyPlace(KeyMove.WHOLE, bucket_of(session, buckets))
    raise StoreUnsuitable(f"a key that this version does not know: {rest[:80].decode(errors='replace')!r}")


def place_outside(rest: bytes, *, other_buckets: bool) -> KeyPlace:
    """The same for a key outside the buckets. `other_buckets`: where a connection is held is written anew."""
    if _LEFT.match(rest) or (other_buckets and rest.startswith(_HELD)):
        return KeyPlace(KeyMove.NOT)
    return KeyPlace(KeyMove.WHOLE)
