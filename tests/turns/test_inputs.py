"""What clients publish, against the recorded inputs, and back through the decoder (protocol sections 3.1, 5.2)."""

from __future__ import annotations

import json

import pytest

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import decoder as d
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.turns.inputs import InputIds
from selfhost_transport.turns.ui import DataPart, FilePart, TextPart
from selfhost_transport.turns.values import unpack
from selfhost_transport.wire.message import Message
from tests.turns.rebuilt_inputs import rebuilt
from tests.turns.transcripts import load, load_all, transport

# Written by hand, with an order of headers of their own.
FOREIGN = ("71-", "74-")


def recorded_inputs() -> list[Message]:
    return [
        message
        for transcript in load_all()
        if not transcript.name.startswith(FOREIGN)
        for message in transcript.live()
        if message.name in (h.AI_INPUT, h.AI_CANCEL)
        # Forks and seeds are useChat's way to answer; ours resumes the turn (section 8.11).
        and "supersedes" not in transport(message)
    ]


@pytest.mark.parametrize("message", recorded_inputs(), ids=lambda m: f"{m.name}-{m.serial}")
def test_inputs_are_made_as_the_sdk_makes_them(message: Message) -> None:
    made = rebuilt(message)
    expected = json.loads(json.dumps(message.extras))
    if transport(message).get("run-id"):
        # The SDK names a parent inside the run; a Python client must not (section 3.2, v74).
        expected["ai"]["transport"].pop("parent", None)
    assert json.dumps(made.extras) == json.dumps(expected)
    assert (made.name, made.data, made.encoding) == (message.name, message.data, message.encoding)


def test_a_message_of_several_parts_is_one_frame_with_one_message_each() -> None:
    parts: list[inputs.UserPart] = [
        TextPart("look"),
        FilePart("https://e/a.png", "image/png"),
        DataPart("data-x", {"n": 1}, "d"),
    ]
    made = inputs.user_message(parts, InputIds("u", "e"), client_id=None, message_id="mine")
    assert [m.data for m in made] == ["look", "https://e/a.png", '{"n":1}']
    assert {json.dumps(transport(m)) for m in made} == {json.dumps(transport(made[0]))}
    assert "run-client-id" not in transport(made[0])


def test_no_parts_become_one_empty_text() -> None:
    (made,) = inputs.user_message([], InputIds("u", "e"), client_id=None)
    assert made.data == ""


def test_ids_are_fresh_unless_given() -> None:
    assert InputIds() != InputIds()


def test_a_steer_has_no_place_of_its_own_in_the_tree() -> None:
    with pytest.raises(InvalidArgument):
        inputs.user_message([TextPart("x")], InputIds(), client_id=None, run_id="r", parent="p")


def test_a_cancel_names_something() -> None:
    with pytest.raises(InvalidArgument):
        inputs.cancel(event_id="e")


def test_the_recorded_fork_brings_its_seed() -> None:
    fork = next(m for m in load("28").live() if transport(m).get("supersedes"))
    headers = h.read_headers(fork)
    assert headers is not None
    event = d.decode_input(headers, unpack(fork))
    assert isinstance(event, d.ToolResolved)
    assert [copy.codec_message_id for copy in event.seed] == ["MSG-FORK-1"]
