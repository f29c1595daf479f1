"""Codecs by name, by what a conversation holds, and what a front end hands over beside the messages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.turns.client_input import ClientInput, client_input_of
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.codecs import OPENAI, UI_MESSAGES, codec_named, codec_of
from selfhost_transport.turns.record import Record
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.message import Message
from tests.turns.transcripts import Transcript, load_all


def test_codecs_by_name() -> None:
    assert codec_named(None) is UI_MESSAGES and codec_named(OPENAI) is OPENAI
    assert codec_named(OPENAI.name) is OPENAI and codec_named(UI_MESSAGES.name) is UI_MESSAGES
    with pytest.raises(InvalidArgument, match=f"no codec 'morse'; known are {OPENAI.name}"):
        codec_named("morse")


@pytest.mark.parametrize("event", [{}, {"type": None}, {"type": 1}])
def test_an_event_of_openai_needs_its_type(event: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="needs a string field `type`"):
        OPENAI.chunk_from_json(event)


def records(transcript: Transcript) -> Iterator[Record]:
    for message in transcript.history():
        if (headers := h.read_headers(message)) is not None and headers.codec_message_id:
            yield Record(message.serial, "", headers, message.client_id, headers.codec_message_id)


@pytest.mark.parametrize(("codec", "expected"), [(OPENAI, OPENAI), (UI_MESSAGES, None)])
def test_a_conversation_shows_its_codec_or_does_not(codec: Codec, expected: Codec | None) -> None:
    found = [codec_of(records(transcript)) for transcript in load_all(codec.name)]
    assert found and set(found) == {expected}


def question(key: str) -> list[Message]:
    ids = inputs.InputIds(key, f"e-{key}")
    return list(inputs.user_message([TextPart("?"), TextPart("!")], ids, client_id="ann"))


def test_what_a_front_end_hands_over_travels_in_the_first_message_and_the_newest_counts() -> None:
    first, second, third = question("a"), question("b"), question("c")
    given = ClientInput({"step": 1}, ({"name": "clock"},), ({"value": "x"},), {"theme": "dark"})
    ClientInput({"step": 0}).attach(first)
    given.attach(second)
    # Nothing to hand over, and nothing that could carry it.
    ClientInput().attach(third)
    given.attach([])
    assert client_input_of([*first, *second, *third]) == given
    assert client_input_of(first) == ClientInput({"step": 0})
    assert client_input_of(third) == client_input_of([Message()]) == ClientInput()
