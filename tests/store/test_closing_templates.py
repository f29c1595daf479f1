"""Closing messages that are filled into a template are those that would be made and packed."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfhost_transport.store import closing_templates
from selfhost_transport.store.turn_records import ClosingMessages, PackedClosing
from selfhost_transport.store.turn_request import _packed_closing, closing_messages_for
from selfhost_transport.turns.context import TurnContext

NAME = st.one_of(
    st.uuids().map(str),
    st.text(max_size=40),
    st.sampled_from(
        [
            "",
            "-",
            "ab",
            "user-1",
            "ä" * 30,
            "x" * 31,
            "x" * 32,
            "x" * 300,
            "\0" * 20,
            "-" * 20,
            "\2\3A",
            "\2\3B-",
        ]
    ),
)
MAYBE = st.none() | NAME
CONTEXT = st.builds(
    TurnContext,
    session=NAME, turn_id=NAME, invocation_id=NAME, agent_client_id=NAME, step_id=NAME, owner_client_id=MAYBE,
    input_client_id=MAYBE, input_codec_message_id=MAYBE, parent=MAYBE, output_parent=MAYBE, fork_of=MAYBE,
    msg_regenerate=MAYBE, step_client_id=NAME, invocation=st.integers(0, 3),
    codec=st.sampled_from([None, "openai-responses"]), traceparent=MAYBE,
)  # fmt: skip
ORDINARY = TurnContext(
    "chat", "t" * 36, "i" * 36, "assistant", "i" * 36 + "-step-0", "user-1234567890-1234567890"
)


@given(CONTEXT)
@example(ORDINARY)
def test_filled_templates_are_what_is_made_and_packed(context: TurnContext) -> None:
    filled, made = _packed_closing(context), closing_messages_for(context)
    assert filled.fields() == made.fields()
    assert list(filled.fields()) == list(made.fields())
    assert filled.parent == made.parent


@given(st.tuples(*[st.uuids().map(str)] * 6))
def test_names_of_the_same_lengths_share_a_template(names: tuple[str, ...]) -> None:
    closing_templates._template.cache_clear()
    for turn, invocation, parent in (names[:3], names[3:]):
        context = dataclasses.replace(ORDINARY, turn_id=turn, invocation_id=invocation, parent=parent)
        filled = _packed_closing(context)
        assert isinstance(filled, PackedClosing)
        assert filled.fields() == closing_messages_for(context).fields()
    assert closing_templates._template.cache_info().currsize == 1


def test_the_marks_of_a_template_in_a_name_are_left_there() -> None:
    marks = f"{closing_templates._TOKEN}A".ljust(36, "-")
    context = dataclasses.replace(ORDINARY, turn_id="t" * 36, owner_client_id=marks, parent=f"x{marks}")
    assert _packed_closing(context).fields() == closing_messages_for(context).fields()


def test_a_name_that_is_no_proper_text_is_mended_as_ever() -> None:
    context = dataclasses.replace(ORDINARY, owner_client_id="half a character \ud800 of a pair")
    made = _packed_closing(context)
    assert isinstance(made, ClosingMessages)
    assert made.fields() == closing_messages_for(context).fields()


def test_names_of_people_share_templates_however_short_they_are() -> None:
    closing_templates._template.cache_clear()
    for number in range(100, 1000):
        _packed_closing(
            dataclasses.replace(ORDINARY, owner_client_id=f"u{number}", input_client_id=f"u{number}")
        )
    assert closing_templates._template.cache_info().currsize == 1


@pytest.mark.parametrize("length", range(40))
def test_every_length_of_a_name(length: int) -> None:
    context = dataclasses.replace(ORDINARY, owner_client_id="o" * length, input_codec_message_id="c" * length)
    assert _packed_closing(context).fields() == closing_messages_for(context).fields()
