"""Filters of derived channels."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.errors import InvalidChannelName
from selfhost_transport.wire.channel import parse_channel
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.message_filter import MessageFilter

NORTH = Message(name="n", client_id="ann", data="secret", extras={"headers": {"region": "north", "n": 0}})


def filtered(text: str) -> MessageFilter:
    return MessageFilter.parse(b64encode(text.encode()).decode())


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ('name == `"n"`', True),
        ("name == 'm'", False),
        ("headers.region == 'north' && clientId == 'ann'", True),
        ("headers.region == 'south' || name != 'n'", False),
        ("headers.missing", False),
        ("headers.n == `0`", True),
        ("headers.n", True),
        ("headers.n > `0`", False),
        ("extras.headers.region", True),
        ("data", False),
        ("length(headers.n)", False),
        ("contains(['north', 'east'], headers.region)", True),
    ],
)
def test_what_an_expression_selects(text: str, matches: bool) -> None:
    assert filtered(text).matches(NORTH) is matches


@given(st.none() | st.dictionaries(st.text(), st.none() | st.integers() | st.text()))
def test_a_message_of_any_form_is_selected_or_not(extras: dict[str, Any] | None) -> None:
    for text in ("sort(headers)", "headers.*.x[0] == name", "max_by(extras, &x)"):
        assert filtered(text).matches(Message(extras=extras)) in (True, False)


@pytest.mark.parametrize("text", ["", "name ==", "a" * 2000, "(" * 900, "f(name"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(InvalidChannelName):
        filtered(text)


@pytest.mark.parametrize("encoded", ["%%%", "=", "A", urlsafe_b64encode(b"\xff\xfe").decode()])
def test_what_is_no_base64_is_refused(encoded: str) -> None:
    with pytest.raises(InvalidChannelName):
        MessageFilter.parse(encoded)


def test_a_derived_channel_has_a_name_params_and_a_filter() -> None:
    encoded = b64encode(b"name == 'x'").decode()
    ref = parse_channel(f"[filter={encoded}?rewind=3]a:b")
    assert (ref.name, ref.params) == ("a:b", {"rewind": "3"})
    assert ref.filter == filtered("name == 'x'") and ref.filter != filtered("name == 'y'")
    assert parse_channel("[?rewind=3]a:b").filter is None
