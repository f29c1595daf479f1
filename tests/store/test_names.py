"""Names of keys, fields and members: unambiguous whatever sessions, ids and clients are called."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.names import control_message, joined, pair, part, split_pair, whole
from selfhost_transport.turns.context import turn_id_for

# What names are joined with, what escapes them, what Lua patterns and numbers could mistake, and ordinary letters.
HOSTILE = st.text(st.sampled_from(": %\0\n\t\r\x7fa3AzäÿñF0.-[]^$()"), max_size=8)
ITEM = st.tuples(st.sampled_from("tfyice"), HOSTILE, HOSTILE)
KEYS = Keyspace("p", buckets=1)


@given(st.lists(ITEM, min_size=2, max_size=6, unique=True))
def test_no_two_items_share_a_key(items: list[tuple[str, str, str]]) -> None:
    keys = {KEYS.of_item(letter, item, session) for letter, item, session in items}
    assert len(keys) == len(items)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_a_text_cut_elsewhere_is_another_name(first: str, middle: str, last: str) -> None:
    """The same characters, split between id and session at different places."""
    texts = (first, middle, last)
    cuts = [(":".join(texts[:at]), ":".join(texts[at:])) for at in (1, 2)]
    assert len(set(cuts)) == len({KEYS.of_item("t", *cut) for cut in cuts})
    assert len(set(cuts)) == len({joined(*cut) for cut in cuts})
    spaced = [(" ".join(texts[:at]), " ".join(texts[at:])) for at in (1, 2)]
    assert len(set(spaced)) == len({pair(*cut) for cut in spaced})


@given(HOSTILE, HOSTILE)
def test_pairs_and_parts_are_read_back(first: str, last: str) -> None:
    assert whole(part(first)) == first
    assert split_pair(pair(first, last)) == (first, last)
    assert not set(part(first)) & set(": \n\t\0")


@given(st.lists(st.tuples(HOSTILE, HOSTILE), min_size=2, max_size=6, unique=True))
def test_no_two_inputs_of_any_sessions_share_a_turn_id(inputs: list[tuple[str, str]]) -> None:
    assert len({turn_id_for(*one) for one in inputs}) == len(inputs)


def test_the_ids_of_sdks_stay_as_they_are() -> None:
    """What was written before names were escaped is found."""
    turn = "5d6e7a0e-3f57-5c1b-9d4e-8f0a3c2b1d11"
    assert KEYS.of_item("t", turn, "chat:42") == f"p:{{b0}}:t:{turn}:chat:42"
    assert pair(turn, "chat 42") == f"{turn} chat 42"
    assert turn_id_for("chat:42", "m1") == "c215c5af-c3d6-541b-979e-12aa2e4d2605"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(HOSTILE, min_size=2, max_size=12))
async def test_scripts_make_the_same_names(connection: RedisConnection, texts: list[str]) -> None:
    source = (Path(scripts.__file__).parent / "scripts/_names.lua").read_text() + (
        "local found = {}\n"
        "for at = 1, #ARGV, 2 do\n"
        "  local one = pair(ARGV[at], ARGV[at + 1])\n"
        "  found[#found + 1] = part(ARGV[at])\n"
        "  found[#found + 1] = one\n"
        "  for _, text in ipairs({split_pair(one)}) do found[#found + 1] = text end\n"
        "end\n"
        "return found\n"
    )
    pairs = list(pairwise(texts))
    flat = [text for one in pairs for text in one]
    reply = [text.decode() for text in await connection.command("EVAL", source, 0, *flat)]
    assert reply == [name for one in pairs for name in (part(one[0]), pair(*one), *one)]


@pytest.mark.parametrize("names", [("w 1", "t:1 2", "7"), ("w", "t\n", "7n")])
def test_words_of_the_control_channel_are_read_back(names: tuple[str, str, str]) -> None:
    holder, turn, fence = names
    payload = f"stop {pair(holder, pair(turn, fence))}"
    assert control_message(payload.encode()) == ["stop", *names]
