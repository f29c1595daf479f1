"""Annotation types, the summaries they fold into, and annotations as maps."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import BadRequest, InvalidArgument
from selfhost_transport.wire.actions import AnnotationAction
from selfhost_transport.wire.annotation import Annotation, decode_annotation, encode_annotation
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.summary import Method, Tally, method_of, summary_to_wire


@pytest.mark.parametrize("text", [None, "", "total.v1", "a:total", "a:sum.v1", "a b:total.v1", "a:total.v1 "])
def test_a_type_names_a_known_method(text: str | None) -> None:
    with pytest.raises(BadRequest, match=r"unique\.v1"):
        method_of(text)


def test_which_methods_have_names_and_need_a_client() -> None:
    methods = {method: method_of(f"reaction:{method}.v1") for method in Method}
    assert all(method is found for method, found in methods.items())
    assert [method for method in Method if method.has_names] == ["distinct", "unique", "multiple"]
    assert [method for method in Method if method.needs_client] == ["flag", "distinct", "unique"]


def test_a_summary_is_by_type_and_by_name() -> None:
    listed = (("ann", 2), ("bob", 1))
    summary = summary_to_wire(
        [
            Tally("a:total.v1", "", 3, 0, 2, ()),
            Tally("a:flag.v1", "", 2, 0, 2, listed),
            Tally("a:distinct.v1", "like", 2, 0, 5, listed),
            Tally("a:distinct.v1", "love", 1, 0, 1, (("ann", 1),)),
            Tally("a:multiple.v1", "like", 7, 4, 2, listed),
        ]
    )
    people = ["ann", "bob"]
    assert summary == {
        "a:total.v1": {"total": 3},
        "a:flag.v1": {"total": 2, "clientIds": people, "clipped": False},
        "a:distinct.v1": {
            "like": {"total": 2, "clientIds": people, "clipped": True},
            "love": {"total": 1, "clientIds": ["ann"], "clipped": False},
        },
        "a:multiple.v1": {
            "like": {
                "total": 7,
                "clientIds": {"ann": 2, "bob": 1},
                "clipped": False,
                "totalUnidentified": 4,
                "totalClientIds": 2,
            }
        },
    }


@pytest.mark.parametrize("fmt", list(Format))
@pytest.mark.parametrize(
    "annotation",
    [
        Annotation(),
        Annotation(
            id="i", message_serial="m", type="a:total.v1", action=AnnotationAction.CREATE, name="n", count=0, data="d",
            extras={"a": 1}, serial="s", client_id="c", connection_id="k", timestamp=0,
        ),
    ],
)  # fmt: skip
def test_an_annotation_is_read_as_it_was_written(annotation: Annotation, fmt: Format) -> None:
    assert decode_annotation(encode_annotation(annotation, fmt), fmt) == annotation


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="unknown annotation action 9"):
        decode_annotation({"action": 9}, Format.JSON)
