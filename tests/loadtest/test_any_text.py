"""Answers of any text: each broken promise is noticed, live or against the history."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.loadtest.any_text import AnyTextCheck, usage_by_turn
from selfhost_transport.loadtest.incoming import READERS
from selfhost_transport.loadtest.recorder import ViolationKind as Kind
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.codec import Format
from tests.loadtest.frames import Stream

SAID = ["Once ", "upon", " a time, ", "there was."]


def a_stream() -> tuple[Stream, AnyTextCheck]:
    stream = Stream()
    check = AnyTextCheck(READERS[Format.JSON], stream.seen)
    stream.check = check
    stream.expect(-1)
    return stream, check


def stored(serial: str, text: str, name: str = h.AI_OUTPUT, **headers: str) -> dict[str, Any]:
    extras = {"ai": {"transport": {h.RUN_ID: "run-1", **headers}}}
    return {"serial": serial, "name": name, "data": text, "extras": extras}


def found(check: AnyTextCheck, *rows: dict[str, Any]) -> list[Kind]:
    return [kind for kind, _, _ in check.differences(rows)]


@given(said=st.lists(st.text(max_size=8), min_size=1, max_size=8))
def test_what_came_is_what_the_history_has(said: list[str]) -> None:
    stream, check = a_stream()
    text = stream.open()
    for chunk in said:
        stream.append(text, chunk)
    stream.end()
    assert stream.seen.broken_promises == []
    assert stream.seen.ended == ["complete"]
    assert found(check, stored(text, "".join(said))) == []


@pytest.mark.parametrize(
    ("history", "kind"),
    [
        ("".join(SAID) + " The end.", Kind.LOST), ("Once upon", Kind.WRONG_TEXT), ("Twice upon a time, ", Kind.WRONG_TEXT),
    ],
)  # fmt: skip
def test_a_difference_from_the_history_is_named(history: str, kind: Kind) -> None:
    stream, check = a_stream()
    text = stream.open()
    for chunk in SAID:
        stream.append(text, chunk)
    stream.end()
    assert found(check, stored(text, history)) == [kind]


def test_messages_that_only_one_of_them_has() -> None:
    stream, check = a_stream()
    text = stream.open()
    stream.append(text, "x")
    stream.end()
    assert found(check) == [Kind.WRONG_TEXT]
    assert found(check, stored(text, "x"), stored("99999999999999-000@abcdefghij:0", "y")) == [Kind.LOST]
    end = stored("2", "", h.AI_RUN_END, **{h.RUN_REASON: "cancelled"})
    assert found(check, stored(text, "x"), end) == [Kind.WRONG_TERMINAL]


def test_a_chunk_that_comes_again_and_an_aggregate_that_differs() -> None:
    stream, _ = a_stream()
    text = stream.open()
    stream.append(text, "Once ", at=2000)
    stream.append(text, "Once ", at=2000)
    stream.aggregate(text, "Once upon")
    stream.aggregate(text, "Never")
    assert stream.seen.broken_promises == [Kind.DUPLICATE, Kind.WRONG_TEXT]


def test_content_after_a_cancel_and_a_second_end() -> None:
    stream, check = a_stream()
    turn = stream.expect(-1, outcomes=frozenset({"cancelled"}))
    text = stream.open()
    stream.append(text, "Once ", at=2000)
    turn.cancel_position = f"{1500:014d}-000"
    check.cancelled(turn, turn.cancel_position)
    stream.end("cancelled")
    stream.end("complete")
    assert stream.seen.broken_promises == [Kind.AFTER_CANCEL, Kind.SECOND_TERMINAL]


def test_usage_is_read_from_the_metadata() -> None:
    row = stored("1", "")
    row["extras"]["ai"]["codec"] = {"messageMetadata": '{"usage": {"inputTokens": 3, "outputTokens": 5}}'}
    other = stored("2", "")
    other["extras"]["ai"]["codec"] = {"messageMetadata": "[1]"}
    assert usage_by_turn([row, other, {"serial": "3"}]) == {"run-1": (3, 5)}
