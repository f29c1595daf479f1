"""Serials: their order is that of the positions, as strings too (protocol section 16, P1)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.wire.serial import (
    MAX_COUNTER,
    MAX_INDEX,
    MAX_MS,
    Position,
    format_item,
    format_position,
    new_epoch,
    parse_position,
)

EPOCH = "abcdefghi0"
positions = st.builds(Position, st.integers(0, MAX_MS), st.integers(0, MAX_COUNTER))
near = st.builds(Position, st.integers(1_763_000_000_000, 1_763_000_000_002), st.integers(0, 3))
indexes = st.integers(0, MAX_INDEX)


@given(positions | near, positions | near, indexes, indexes)
def test_strings_sort_as_positions_do(first: Position, second: Position, one: int, two: int) -> None:
    assert (format_position(first, EPOCH) < format_position(second, EPOCH)) == (first < second)
    assert (format_item(first, EPOCH, one) < format_item(second, EPOCH, two)) == (
        (first, one) < (second, two)
    )


@given(positions, indexes)
def test_serials_are_read_back(position: Position, index: int) -> None:
    assert parse_position(format_position(position, EPOCH)) == (position, EPOCH, None)
    assert parse_position(format_item(position, EPOCH, index)) == (position, EPOCH, index)
    assert Position.parse_id(position.stream_id) == position


def test_the_forms() -> None:
    position = Position(1_826_232_498_871, 1)
    assert format_position(position, EPOCH) == "01826232498871-001@abcdefghi0"
    assert format_item(position, EPOCH, 12) == "01826232498871-001@abcdefghi0:012"
    assert position.stream_id == "1826232498871-1"
    assert position > Position.ZERO


@pytest.mark.parametrize(
    "text",
    [
        "", "1763-0", "01826232498871-001", "01826232498871-001@ABCDEFGHIJ", "01826232498871-001@abcdefghi0:1",
        "01826232498871-001@abcdefghi0\n", "0182623249887\u0661-001@abcdefghi0", "01826232498871-001@abcdefghi",
    ],
)  # fmt: skip
def test_foreign_serials_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_position(text)


@pytest.mark.parametrize("text", ["", "1", "1-", "-1-0", "1-0 ", "a-b", "1-0-0", "\u0663-0"])
def test_foreign_stream_ids_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Position.parse_id(text)


@pytest.mark.parametrize("position", [Position(MAX_MS + 1, 0), Position(0, MAX_COUNTER + 1), Position(-1, 0)])
def test_a_position_that_would_not_fit_is_refused(position: Position) -> None:
    with pytest.raises(InvalidArgument):
        format_position(position, EPOCH)


def test_an_index_that_would_not_fit_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        format_item(Position.ZERO, EPOCH, MAX_INDEX + 1)


@pytest.mark.parametrize("epoch", ["", "short", "ABCDEFGHIJ", "abcdefghi@"])
def test_a_epoch_of_another_form_is_refused(epoch: str) -> None:
    with pytest.raises(InvalidArgument):
        format_position(Position.ZERO, epoch)


def test_a_new_epoch_is_valid_and_its_own() -> None:
    made = {new_epoch() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("[a-z0-9]{10}", epoch) for epoch in made)
