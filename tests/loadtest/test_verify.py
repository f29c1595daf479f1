"""Each broken promise is noticed, and nothing is called broken that is not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.loadtest.recorder import ViolationKind as Kind
from selfhost_transport.wire.codec import Format
from tests.loadtest.frames import Stream, serial_at

TOKENS = [f"{number} " for number in range(6)]


@pytest.mark.parametrize("fmt", Format)
def test_a_turn_as_it_should_be(fmt: Format) -> None:
    stream = Stream(fmt)
    turn = stream.expect()
    stream.start()
    text = stream.open()
    for chunk in ("0 ", "1 2 3 ", "4 5 ", ""):
        stream.append(text, chunk)
    stream.end()
    assert stream.seen.broken_promises == []
    assert stream.seen.started == ["run-1"]
    assert stream.seen.ended == ["complete"]
    assert stream.seen.tokens == turn.tokens


@given(cuts=st.sets(st.integers(1, 12)), aggregated=st.booleans(), cut=st.integers(0, 12))
def test_any_cutting_and_any_moment_of_joining_is_fine(cuts: set[int], aggregated: bool, cut: int) -> None:
    whole = "".join(TOKENS)
    stream = Stream()
    stream.expect()
    text, start = serial_at(900), 0
    if aggregated:
        stream.aggregate(text, whole[:cut])
        start = cut
    else:
        text = stream.open()
    places = [start, *sorted(place for place in cuts if start < place < 12), 12]
    for begin, end in itertools.pairwise(places):
        stream.append(text, whole[begin:end])
    stream.end()
    assert stream.seen.broken_promises == []


@given(missing=st.integers(1, 4))
def test_a_lost_token_is_one_violation(missing: int) -> None:
    stream = Stream()
    stream.expect()
    text = stream.open()
    for number, token in enumerate(TOKENS):
        if number != missing:
            stream.append(text, token)
    stream.end()
    assert stream.seen.broken_promises == [Kind.LOST]


@given(repeated=st.integers(0, 5))
def test_a_repeated_token_is_noticed(repeated: int) -> None:
    stream = Stream()
    stream.expect()
    text = stream.open()
    for number, token in enumerate(TOKENS):
        stream.append(text, token)
        if number == repeated:
            stream.append(text, token)
    stream.end()
    assert stream.seen.broken_promises == [Kind.DUPLICATE]


def test_a_frame_that_comes_again_is_noticed() -> None:
    stream = Stream()
    stream.expect()
    text = stream.open()
    stream.append(text, "0 ")
    stream.append(text, "0 ", at=stream.now)
    assert stream.seen.broken_promises == [Kind.DUPLICATE]


def test_an_earlier_position_after_a_later_one() -> None:
    stream = Stream()
    stream.expect()
    text = stream.open()
    stream.append(text, "0 ", at=5_000)
    stream.append(text, "1 ", at=4_000)
    assert Kind.REORDERED in stream.seen.broken_promises


def test_other_text() -> None:
    stream = Stream()
    stream.expect()
    stream.append(stream.open(), "hello ")
    assert Kind.WRONG_TEXT in stream.seen.broken_promises


def test_tokens_missing_at_the_end() -> None:
    stream = Stream()
    stream.expect(tokens=6)
    stream.append(stream.open(), "0 1 2 ")
    stream.end()
    assert stream.seen.broken_promises == [Kind.LOST]


@pytest.mark.parametrize("acknowledged_first", [True, False])
def test_content_after_an_acknowledged_cancel(acknowledged_first: bool) -> None:
    stream = Stream()
    turn = stream.expect(outcomes=frozenset({"cancelled"}))
    text = stream.open()
    stream.append(text, "0 ")
    position = serial_at(stream.now + 1)
    stream.now += 1
    if acknowledged_first:
        turn.cancel_position = position
        stream.append(text, "1 ")
    else:
        stream.append(text, "1 ")
        turn.cancel_position = position
        stream.check.cancelled(turn, position)
    assert stream.seen.broken_promises == [Kind.AFTER_CANCEL]


def test_the_closing_entry_of_a_cancel_is_no_content() -> None:
    stream = Stream()
    turn = stream.expect(outcomes=frozenset({"cancelled"}))
    text = stream.open()
    stream.append(text, "0 1 ")
    turn.cancel_position = serial_at(stream.now + 1)
    stream.now += 1
    stream.append(text, "")
    stream.end("cancelled")
    stream.check.cancelled(turn, turn.cancel_position)
    assert stream.seen.broken_promises == []


def test_a_second_terminal() -> None:
    stream = Stream()
    stream.expect(tokens=0)
    stream.end()
    stream.end("error")
    assert stream.seen.broken_promises == [Kind.SECOND_TERMINAL]
    assert stream.seen.ended == ["complete"]


def test_another_terminal_than_expected() -> None:
    stream = Stream()
    stream.expect()
    stream.end("error")
    assert stream.seen.broken_promises == [Kind.WRONG_TERMINAL]


def test_content_after_the_terminal() -> None:
    stream = Stream()
    turn = stream.expect(tokens=1)
    text = stream.open()
    stream.append(text, "0 ")
    stream.end()
    stream.check.forget(turn)
    stream.append(text, "1 ")
    assert stream.seen.broken_promises == [Kind.AFTER_TERMINAL]


def test_a_missing_terminal() -> None:
    stream = Stream()
    turn = stream.expect()
    stream.check.give_up(turn)
    assert stream.seen.broken_promises == [Kind.MISSING_TERMINAL]


def test_another_attempt_begins_again() -> None:
    stream = Stream()
    stream.expect()
    stream.append(stream.open(), "0 1 2 ")
    stream.append(stream.open(), "".join(TOKENS))
    stream.end()
    assert stream.seen.broken_promises == []


def test_an_aggregate_that_lacks_what_was_seen() -> None:
    stream = Stream()
    stream.expect()
    text = stream.open()
    stream.append(text, "0 1 2 ")
    stream.aggregate(text, "0 1 ")
    assert stream.seen.broken_promises == [Kind.WRONG_TEXT]


def test_turns_of_others_are_not_ours_to_check() -> None:
    stream = Stream()
    stream.expect()
    stream.append(stream.open("run-2"), "hello")
    stream.end("error", "run-2")
    assert stream.seen.broken_promises == []
