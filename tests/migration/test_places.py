"""Every family of keys has a place in more buckets, which is where the store looks for it."""

from __future__ import annotations

import re

import pytest

from selfhost_transport.errors import StoreUnsuitable
from selfhost_transport.migration.places import KeyMove, bucket_of, place_in_bucket, place_outside
from selfhost_transport.store import keys
from selfhost_transport.store.keys import Keyspace

_ROW = re.compile(r"^\| `([^`]+)`", re.MULTILINE)
_IN_BUCKETS, _OF_PUSHES = (
    [name for name in _ROW.findall(part) if name != "key"] for part in str(keys.__doc__).split("`{push}`")
)


def test_the_table_of_keys_is_read() -> None:
    assert len(_IN_BUCKETS) > 30 and "s:<session>" in _IN_BUCKETS and "leases" in _IN_BUCKETS
    assert len(_OF_PUSHES) > 5 and "people" in _OF_PUSHES


@pytest.mark.parametrize("family", _OF_PUSHES)
def test_pushes_are_outside_the_buckets_and_keep_their_names(family: str) -> None:
    name = Keyspace("p", 64).push.removeprefix("p:") + re.sub("<[^>]+>", "one%3Atwo", family)
    assert place_outside(name.encode(), other_buckets=True).way is KeyMove.WHOLE


@pytest.mark.parametrize("family", _IN_BUCKETS)
def test_every_family_has_a_place(family: str) -> None:
    session = "chat: 7:ü"
    name = re.sub("<ref>", "1700000000000-3:12", re.sub("<session>", session, family))
    name = re.sub("<[^>]+>", "one%3Atwo", name)
    place = place_in_bucket(name.encode(), 3, 64)
    if "<session>" in family and place.way is KeyMove.WHOLE:
        assert place.bucket == keys.bucket_of(session, 64) == bucket_of(session.encode(), 64)
    elif place.way is KeyMove.WHOLE:
        assert place.bucket == 3


def test_keys_of_sessions_go_where_the_store_looks() -> None:
    space = Keyspace("p", 64)
    for letter in "icetfyu":
        built = space.of_item(letter, "a:b c", "room:1")
        tag, rest = built.removeprefix("p:").split(":", 1)
        assert tag == f"{{b{place_in_bucket(rest.encode(), 0, 64).bucket}}}"


def test_what_is_not_known_is_refused() -> None:
    for name in (b"zz:room", b"what", b"t:room", b"x:1-0:room", b"s"):
        with pytest.raises(StoreUnsuitable, match="does not know"):
            place_in_bucket(name, 0, 64)


def test_what_belongs_to_processes_stays_behind() -> None:
    for name in (b"agents:one", b"duty:reap", b"statistics:x", b"format", b"deployment", b"migration"):
        assert place_outside(name, other_buckets=False).way is KeyMove.NOT
    assert place_outside(b"held:conn", other_buckets=True).way is KeyMove.NOT
    for name in (b"held:conn", b"secret", b"revoked", b"formats"):
        assert place_outside(name, other_buckets=False).way is KeyMove.WHOLE
