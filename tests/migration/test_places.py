"""Every family of keys has a place in more buckets, which is where the store looks for it."""

from __future__ import annotations

import re

import pytest

from selfhost_transport.errors import StoreUnsuitable
from selfhost_transport.migration.places import Way, bucket_of, place_in_bucket, place_outside
from selfhost_transport.store import keys
from selfhost_transport.store.keys import Keyspace

_ROW = re.compile(r"^\| `([^`]+)`", re.MULTILINE)
_FAMILIES = [name for name in _ROW.findall(str(keys.__doc__)) if name != "key"]


def test_the_table_of_keys_is_read() -> None:
    assert len(_FAMILIES) > 30 and "s:<session>" in _FAMILIES and "leases" in _FAMILIES


@pytest.mark.parametrize("family", _FAMILIES)
def test_every_family_has_a_place(family: str) -> None:
    session = "chat: 7:ü"
    name = re.sub("<ref>", "1700000000000-3:12", re.sub("<session>", session, family))
    name = re.sub("<[^>]+>", "one%3Atwo", name)
    place = place_in_bucket(name.encode(), 3, 64)
    if "<session>" in family and place.way is Way.WHOLE:
        assert place.bucket == keys.bucket_of(session, 64) == bucket_of(session.encode(), 64)
    elif place.way is Way.WHOLE:
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
        assert place_outside(name, other_buckets=False).way is Way.NOT
    assert place_outside(b"held:conn", other_buckets=True).way is Way.NOT
    for name in (b"held:conn", b"secret", b"revoked", b"formats"):
        assert place_outside(name, other_buckets=False).way is Way.WHOLE
