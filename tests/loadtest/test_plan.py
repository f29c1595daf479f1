"""Plans: addresses, shares, and the search for the knee."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.loadtest.plan import (
    FIRST_SENDS_PER_S,
    Habit,
    Load,
    People,
    Plan,
    Prices,
    Scenario,
    Target,
    shares,
)
from selfhost_transport.wire.codec import Format

TARGET = Target.parse(["http://127.0.0.1:8080", "ws://[::1]:8081/"], "app.key:a b+c", "")


def test_connections_go_round_the_gateways() -> None:
    first, second, third = (TARGET.socket_url(number, Format.JSON, "me") for number in range(3))
    assert first == third
    assert urlsplit(first).netloc == "127.0.0.1:8080"
    assert urlsplit(second).netloc == "[::1]:8081"


def test_the_query_of_a_connection() -> None:
    query = parse_qs(urlsplit(TARGET.socket_url(0, Format.MSGPACK, "user 1", "id!key")).query)
    assert "key" not in query
    assert TARGET.headers == {"Authorization": f"Basic {b64encode(b'app.key:a b+c').decode()}"}
    assert query["format"] == ["msgpack"]
    assert query["clientId"] == ["user 1"]
    assert query["resume"] == ["id!key"]


def test_a_token_instead_of_a_key() -> None:
    target = Target.parse(["wss://example.test"], "", "abc")
    query = parse_qs(urlsplit(target.socket_url(0, Format.JSON, "me")).query)
    assert not {"access_token", "key"} & set(query)
    assert target.headers == {"Authorization": "Bearer abc"}
    assert target.http_url(0) == "https://example.test"
    assert TARGET.http_url(1) == "http://[::1]:8081"
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


def test_people_have_habits_and_the_rest_is_refused() -> None:
    load = replace(Load(any_text=True), people=People.parse("read=2,interrupt=3@30%, reload=1"), turns=6)
    load.check()
    assert [load.habit_of(number) for number in (0, 1, 2, 4, 5, 6)] == [
        (Habit.READ, 100), (Habit.READ, 100), (Habit.INTERRUPT, 30), (Habit.INTERRUPT, 30), (Habit.RELOAD, 100),
        (Habit.READ, 100),
    ]  # fmt: skip
    assert replace(Load(any_text=True), scenario=Scenario.INTERRUPT).habit_of(3) == (Habit.INTERRUPT, 100)
    for text in ("sleep=1", "read", "read=x", "read=0", "read=1@101%"):
        with pytest.raises(InvalidArgument):
            People.parse(text)


@pytest.mark.parametrize(
    "change",
    [
        {"people": People.parse("read=1")}, {"arrivals_per_s": 1.0}, {"think": "3"},
        {"any_text": True, "think": "often"}, {"any_text": True, "scenario": Scenario.NOISY}, {"namespace": "a,,b"},
        {"any_text": True, "ramp_up_s": -1.0},
    ],
)  # fmt: skip
def test_people_that_cannot_be_had(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        replace(Load(), **change).check()


def test_people_come_over_the_time_of_the_ramp() -> None:
    load = Load(turns=10, ramp_up_s=30.0)
    assert load.spread_s == 30.0
    assert load.lead_s == 40.0
    assert Load(turns=10, ramp_up_s=30.0, warmup_s=2.0).lead_s == 2.0


def test_prices_are_two_numbers() -> None:
    assert Prices.parse("") is None
    assert Prices.parse("0.15,0.6") == Prices(0.15, 0.6)
    for text in ("a", "1,2,3", "-1,2"):
        with pytest.raises(InvalidArgument):
            Prices.parse(text)


@pytest.mark.parametrize("turns", [1, 150, 2000])
def test_first_sends_are_spread_and_settle_before_measuring_begins(turns: int) -> None:
    load = Load(turns=turns)
    assert turns / load.spread_s <= FIRST_SENDS_PER_S
    assert load.spread_s < load.lead_s
    assert Load(turns=turns, warmup_s=1.0).lead_s == 1.0
