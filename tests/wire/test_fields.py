"""Values out of a map: null is absent, the wrong type is refused by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from selfhost_transport.errors import BadRequest
from selfhost_transport.wire import fields
from selfhost_transport.wire.receipts import CancelReceipt, TurnReceipt, decode_cancel, decode_turn

READERS: list[Callable[[Any, str], Any]] = [
    fields.text, fields.integer, fields.items, fields.mapping, fields.submap, fields.text_map, fields.scalar_map,
]  # fmt: skip


@pytest.mark.parametrize("read", READERS)
def test_null_is_absent(read: Callable[[Any, str], Any]) -> None:
    assert read({}, "x") is None
    assert read({"x": None}, "x") is None


@pytest.mark.parametrize("read", READERS)
def test_another_type_is_refused_by_the_fields_name(read: Callable[[Any, str], Any]) -> None:
    with pytest.raises(BadRequest, match="x must be"):
        read({"x": True}, "x")


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (0, 0),
        (7.0, 7),
        (2**63 - 1, 2**63 - 1),
        (-1, None),
        (2**63, None),
        (0.5, None),
        (1e300, None),
        ("1", None),
    ],
)
def test_a_whole_number_within_its_bounds(value: object, read: int | None) -> None:
    if read is not None:
        assert fields.integer({"x": value}, "x") == read
    else:
        with pytest.raises(BadRequest, match="x"):
            fields.integer({"x": value}, "x")


def test_params_arrive_as_scalars_and_are_texts() -> None:
    given = {"a": "1", "b": 2, "c": True, "d": False, "e": 3.0, "f": 0.5, "g": None, "h": 1e300}
    assert fields.scalar_map({"x": given}, "x") == {
        "a": "1", "b": "2", "c": "true", "d": "false", "e": "3", "f": "0.5", "h": "1e+300",
    }  # fmt: skip
    refused: list[dict[Any, Any]] = [{1: "a"}, {"a": []}, {"a": {}}]
    for wrong in refused:
        with pytest.raises(BadRequest, match="x"):
            fields.scalar_map({"x": wrong}, "x")


@pytest.mark.parametrize("wrong", [{1: "a"}, {"a": 1}])
def test_a_map_of_texts_has_texts_only(wrong: dict[Any, Any]) -> None:
    assert fields.text_map({"x": {"a": "b"}}, "x") == {"a": "b"}
    with pytest.raises(BadRequest, match="x must map strings to strings"):
        fields.text_map({"x": wrong}, "x")


@pytest.mark.parametrize(
    "turn",
    [
        TurnReceipt("t", "pending"),
        TurnReceipt("t", "queued", True, ("a", "b"), waiting=3),
        TurnReceipt("", ""),
    ],
)
def test_a_turns_receipt_is_read_as_it_was_written(turn: TurnReceipt) -> None:
    assert decode_turn(turn.to_wire()) == turn
    assert ("waiting" in turn.to_wire()) == bool(turn.waiting)


@pytest.mark.parametrize(
    "cancel", [CancelReceipt("p"), CancelReceipt("p", ("a",), ("b",), ("c",), ("d",), ("e", "f"))]
)
def test_a_cancels_receipt_is_read_as_it_was_written(cancel: CancelReceipt) -> None:
    assert decode_cancel(cancel.to_wire()) == cancel
    assert ("denied" in cancel.to_wire()) == bool(cancel.denied)


def test_a_receipt_names_turns_by_texts() -> None:
    with pytest.raises(BadRequest, match="matched must be a list of strings"):
        decode_cancel({"position": "p", "matched": ["a", 1]})
