"""Plans: addresses, shares, and the search for the knee."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.loadtest.plan import FIRST_SENDS_PER_S, Load, Plan, Target, shares
from selfhost_transport.loadtest.run import next_load
from selfhost_transport.wire.codec import Format

TARGET = Target.parse(["http://127.0.0.1:8080", "ws://[::1]:8081/"], "app.key:a b+c", "")


def test_connections_go_round_the_gateways() -> None:
    first, second, third = (TARGET.socket_url(number, Format.JSON, "me") for number in range(3))
    assert first == third
    assert urlsplit(first).netloc == "127.0.0.1:8080"
    assert urlsplit(second).netloc == "[::1]:8081"


def test_the_query_of_a_connection() -> None:
    query = parse_qs(urlsplit(TARGET.socket_url(0, Format.MSGPACK, "user 1", "id!key")).query)
    assert query["key"] == ["app.key:a b+c"]
    assert query["format"] == ["msgpack"]
    assert query["clientId"] == ["user 1"]
    assert query["resume"] == ["id!key"]


def test_a_token_instead_of_a_key() -> None:
    target = Target.parse(["wss://example.test"], "", "abc")
    query = parse_qs(urlsplit(target.socket_url(0, Format.JSON, "me")).query)
    assert query["access_token"] == ["abc"]
    assert "key" not in query
    assert not target.same_machine
    assert TARGET.same_machine


@pytest.mark.parametrize(
    ("urls", "key", "token"),
    [
        ([], "a.b:c", ""),
        (["ws://h"], "", ""),
        (["ws://h"], "a.b:c", "t"),
        (["ftp://h"], "a.b:c", ""),
        (["ws://h?x=1"], "a.b:c", ""),
    ],
)
def test_targets_that_are_none(urls: list[str], key: str, token: str) -> None:
    with pytest.raises(InvalidArgument):
        Target.parse(urls, key, token)


@given(turns=st.integers(1, 5000), processes=st.integers(1, 16))
def test_shares_cover_every_session_once(turns: int, processes: int) -> None:
    load = replace(Load(), turns=turns, processes=processes)
    numbers = [
        number
        for share in shares(Plan(TARGET, load), "r")
        for number in range(share.first, share.first + share.count)
    ]
    assert numbers == list(range(turns))


@pytest.mark.parametrize(
    "change", [{"turns": 0}, {"rate": 0.0}, {"rate": -1.0}, {"cancel_percent": 101.0}, {"duration_s": 0.0}]
)
def test_loads_that_cannot_be_run(change: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        replace(Load(), **change).check()  # type: ignore[arg-type]


@given(start=st.integers(1, 300), knee=st.integers(0, 5000), most=st.integers(300, 5000))
def test_the_search_ends_within_a_tenth_of_the_knee(start: int, knee: int, most: int) -> None:
    passed, failed, tried, turns = 0, 0, [], start
    while turns:
        tried.append(turns)
        if turns <= knee:
            passed = turns
        else:
            failed = turns
        turns = next_load(passed, failed, most)
    assert len(tried) == len(set(tried)) <= 26
    assert passed <= min(knee, most)
    if knee >= most:
        assert passed == most
    elif knee:
        assert passed >= knee / 1.1 - 1


@pytest.mark.parametrize("turns", [1, 150, 2000])
def test_first_sends_are_spread_and_settle_before_measuring_begins(turns: int) -> None:
    load = Load(turns=turns)
    assert turns / load.spread_s <= FIRST_SENDS_PER_S
    assert load.spread_s < load.lead_s
    assert Load(turns=turns, warmup_s=1.0).lead_s == 1.0
