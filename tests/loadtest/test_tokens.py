"""Numbered text, against the obvious way to build it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.loadtest.tokens import NumberedText, first_number

REFERENCE = "".join(f"{number} " for number in range(20_000))


@given(start=st.integers(0, 80_000), length=st.integers(0, 9_000))
def test_a_chunk_matches_where_it_stands_and_nowhere_else(start: int, length: int) -> None:
    text = NumberedText()
    chunk = REFERENCE[start : start + length]
    assert text.matches(chunk, start)
    if chunk.strip():
        assert not text.matches(chunk[:-1] + "x", start)


@given(tokens=st.integers(0, 20_000))
def test_length_of_so_many_tokens(tokens: int) -> None:
    assert NumberedText().length(tokens) == len("".join(f"{number} " for number in range(tokens)))


def test_first_number() -> None:
    assert first_number("17 18 ") == 17
    assert first_number("x ") is None
    assert first_number("") is None
