"""Every kind of value that an application may hand over has one fate, at every door."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import uuid
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.values import MAX_DEPTH, carried, pack, to_text

HALF = "half \ud83d"


class Model(BaseModel):
    when: datetime.datetime
    price: decimal.Decimal


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


class Colour(enum.Enum):
    RED = "red"


class Lying:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Unreadable(dict[str, int]):
    def items(self) -> Any:
        raise OSError("gone")


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def circle() -> Any:
    value: dict[str, Any] = {}
    value["a"] = [value]
    return value


RAW: Any = b"raw"
ANYTHING: Any = object()
NOTHING: Any = None
MOMENT: Any = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (HALF, "half \ufffd"),
        ("\ud83d\ude00", "😀"),
        ({HALF: 1}, {"half \ufffd": 1}),
        (2**64, str(2**64)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (2**64 - 1, 2**64 - 1),
        (float("nan"), None),
        ([float("inf")], [None]),
        ({1: "a", None: "b", False: "c", 1.5: "d"}, {"1": "a", "null": "b", "false": "c", "1.5": "d"}),
        ((1, 2), [1, 2]),
        ({3, 1}, [1, 3]),
        (deque([1]), [1]),
        (range(2), [0, 1]),
        (MOMENT, "2026-01-02T03:04:05+00:00"),
        (MOMENT.date(), "2026-01-02"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        ({Colour.RED: 1}, {"red": 1}),
        (Point(Point(1), HALF), {"x": {"x": 1, "y": None}, "y": "half \ufffd"}),
        ([Model(when=MOMENT, price=decimal.Decimal(1))], [{"when": "2026-01-02T03:04:05+00:00", "price": "1"}]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_carried_or_mended(value: Any, written: Any) -> None:
    assert carried(value) == written
    assert json.loads(to_text([value])) == [written]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (b"raw", "X"),
        ({"a": [1, b"raw"]}, "X.a[1]"),
        ({"a": object()}, "X.a"),
        (lambda: 1, "X"),
        (iter([1]), "X"),
        (Point, "X"),
        ({"1": 0, 1: 0}, "X"),
        ({(1, 2): 0}, "X"),
        (Unreadable(a=1), "X"),
        (Lying(), "X"),
        (circle(), "X.a[0]"),
        (nested(MAX_DEPTH + 1), "X[0]"),
        (Point(nested(3 * MAX_DEPTH)), "X.x[0]"),
        (1j, "X"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_refused_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        to_text(value, "X")
    assert refused.value.info.message.startswith(path)
    assert len(refused.value.info.message) < 300
    assert carried(nested(MAX_DEPTH)) == nested(MAX_DEPTH)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=3) | st.decimals() | st.dates()
    | st.text(alphabet=st.characters()) | st.uuids() | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    | st.builds(Point, inner, inner) | st.tuples(inner),
    max_leaves=10,
)  # fmt: skip


@given(JSON)
def test_json_is_carried_as_it_is(value: Any) -> None:
    assert carried(value) == value


@given(ODD)
def test_any_value_is_written_as_strict_json_or_refused(value: Any) -> None:
    try:
        text = to_text(value)
    except InvalidArgument:
        return

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(text.encode(), parse_constant=refuse)


def test_a_text_payload_is_mended() -> None:
    assert pack(HALF) == ("half \ufffd", None)


@pytest.mark.parametrize(
    ("chunk", "field"),
    [
        (p.ToolInputAvailable("c", "t", {"a": RAW}), "`input` of a tool-input-available chunk.a"),
        (p.ToolOutputAvailable("c", [ANYTHING]), "`output` of a tool-output-available chunk[0]"),
        (p.Data("data-x", RAW), "`data` of a data- chunk"),
        (p.Finish("stop", {"m": RAW}), "`messageMetadata` of a finish chunk.m"),
        (p.TextStart("t", {"m": RAW}), "`providerMetadata` of a text-start chunk.m"),
        (p.ToolOutputError("c", RAW), "`errorText` of a tool-output-error chunk"),
        (p.TextDelta("t", NOTHING), "`delta` of a text-delta chunk"),
        (p.TextStart(NOTHING), "`id` of a text-start chunk"),
        (p.ToolInputAvailable("c", "t", dynamic=ANYTHING), "`dynamic` of"),
        (RAW, "bytes cannot be part of an answer"),
        (None, "NoneType cannot be part of an answer"),
        (7, "int cannot be part of an answer"),
    ],
)  # fmt: skip
def test_a_chunk_that_cannot_be_written_is_refused_by_its_field(chunk: p.Chunk, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        p.carried_chunk(chunk)
    assert refused.value.info.message.startswith(field)


def test_a_chunk_is_mended() -> None:
    given = p.ToolOutputAvailable("c", {"at": MOMENT, "text": HALF})
    assert p.carried_chunk(given) == p.ToolOutputAvailable(
        "c", {"at": "2026-01-02T03:04:05+00:00", "text": "half \ufffd"}
    )
    assert p.carried_chunk(p.ToolOutputError("c", HALF)) == p.ToolOutputError("c", "half \ufffd")
    # Its other half may come in the next one.
    assert p.carried_chunk(p.TextDelta("t", HALF)) == p.TextDelta("t", HALF)
