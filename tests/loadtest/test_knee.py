"""The search for the knee, where single runs lie."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.loadtest.knee import KneeSearch
from selfhost_transport.loadtest.result import Knee


def searched(start: int, most: int, lies: set[int], knee: int) -> tuple[Knee, list[int]]:
    """The outcome where the runs of these numbers say the contrary of what is true."""
    search, tried = KneeSearch(start, most), list[int]()
    while turns := search.next_turns():
        search.note(turns, (turns <= knee) != (len(tried) in lies))
        tried.append(turns)
        assert len(tried) < 120
    return search.knee(), tried


@given(start=st.integers(1, 300), knee=st.integers(0, 5000), most=st.integers(300, 5000))
def test_the_search_ends_within_a_tenth_of_the_knee(start: int, knee: int, most: int) -> None:
    found, tried = searched(start, most, set(), knee)
    assert len(tried) <= 60
    assert found.turns <= min(knee, most)
    if knee >= most:
        assert (found.turns, found.above) == (most, 0)
    elif knee:
        assert found.turns >= knee / 1.1 - 1
    # Both ends were seen twice.
    assert found.inside >= 2 or not found.turns
    assert found.above_tried - found.above_inside >= 2 or not found.above


@given(lie=st.integers(0, 25), start=st.sampled_from((50, 93, 100)))
def test_one_outlier_does_not_fix_the_knee(lie: int, start: int) -> None:
    found, _ = searched(start, 4096, {lie}, 800)
    assert 800 / 1.1 - 1 <= found.turns <= 800


def test_lies_in_every_tenth_run_move_it_rarely() -> None:
    off = 0
    for seed in range(100):
        rng = random.Random(seed)
        lies = {number for number in range(200) if rng.random() < 0.1}
        found, _ = searched(100, 4096, lies, 800)
        off += not 800 / 1.25 <= found.turns <= 800 * 1.25
    assert off <= 10


def test_what_was_seen_is_named() -> None:
    assert searched(100, 400, set(), 1000)[0] == Knee(400, 2, 2)
    below, _ = searched(4, 400, set(), 0)
    assert (below.turns, below.above, below.above_inside) == (0, 1, 0)
