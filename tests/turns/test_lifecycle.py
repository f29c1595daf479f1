"""Life-cycle messages and the context derived from a trigger, against every recorded run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from selfhost_transport.errors import ErrorInfo, InvalidArgument
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.lifecycle import (
    STEP_START_PLACEHOLDER,
    RunReason,
    context_for_input,
    invocation_id_for,
    run_end,
    run_start,
    turn_id_for,
)
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, format_item
from tests.turns.rebuilt_lifecycle import rebuilt
from tests.turns.transcripts import Transcript, context_of, load, load_all, transport

# Hand-made agents, whose header order is their own.
FOREIGN = ("70-", "72-", "73-")
MADE_BY_SDK = [transcript for transcript in load_all() if not transcript.name.startswith(FOREIGN)]


@pytest.mark.parametrize("transcript", MADE_BY_SDK, ids=lambda t: t.name)
def test_life_cycle_messages_have_the_recorded_headers_in_the_recorded_order(transcript: Transcript) -> None:
    for message in transcript.live():
        if message.name in h.AGENT_MESSAGES - {h.AI_OUTPUT}:
            made = rebuilt(message)
            assert (made.name, made.data, json.dumps(made.extras)) == (
                message.name, None, json.dumps(message.extras),
            )  # fmt: skip


def trigger_of(opening: Message, before: list[Message]) -> Message:
    """The input an opening event answers: the last one with its codec-message-id."""
    wanted = transport(opening)["input-codec-message-id"]
    return [m for m in before if m.name == h.AI_INPUT and transport(m).get("codec-message-id") == wanted][-1]


def openings(name: str) -> list[Any]:
    return [
        pytest.param(opening, before, id=f"{transcript.name}-{n}")
        for transcript in MADE_BY_SDK
        for n, (opening, before) in enumerate(transcript.triggers())
        if opening.name == name
    ]


@pytest.mark.parametrize(("opening", "before"), openings(h.AI_RUN_START))
def test_a_fresh_context_gives_the_recorded_run_start(opening: Message, before: list[Message]) -> None:
    ctx = context_for_input(trigger_of(opening, before), session="s", agent_client_id="agent-1")
    ids = {"run-id", "invocation-id"}
    made, expected = transport(run_start(ctx)), transport(opening)
    assert {k: v for k, v in made.items() if k not in ids} == {
        k: v for k, v in expected.items() if k not in ids
    }


def test_outputs_of_a_client_fork_hang_below_the_fork_not_its_parent() -> None:
    fork = next(m for m in load("28").live() if transport(m).get("supersedes"))
    ctx = context_for_input(fork, session="s", agent_client_id="agent-1")
    assert (ctx.parent, ctx.output_parent) == ("MSG-USER-1", "MSG-FORK-1")


def test_trn_16_a_continuation_keeps_the_owner_and_names_its_author() -> None:
    opening, before = load("33").triggers()[1]
    first = context_for_input(before[0], session="s", agent_client_id="agent-1")
    ctx = context_for_input(
        trigger_of(opening, before), session="s", agent_client_id="agent-1", invocation=1, previous=first
    )
    assert (ctx.turn_id, ctx.owner_client_id, ctx.input_client_id) == ("RUN-1", "user-1", "user-2")
    assert (ctx.parent, ctx.step_client_id) == ("MSG-USER-1", "user-1")
    assert ctx.invocation_id == invocation_id_for("RUN-1", 1)


def test_the_owner_is_the_verified_publisher_not_what_a_header_claims() -> None:
    (message, *_) = load("01").live()
    message.client_id = "mallory"
    assert context_for_input(message, session="s", agent_client_id="a").owner_client_id == "mallory"


def test_p5_ids_are_the_same_for_the_same_input_and_differ_otherwise() -> None:
    assert turn_id_for("s", "m") == turn_id_for("s", "m")
    assert len({turn_id_for("s", "m"), turn_id_for("s", "n"), turn_id_for("t", "m")}) == 3
    assert invocation_id_for("t", 0) != invocation_id_for("t", 1)


def test_a_message_without_a_codec_message_id_starts_nothing() -> None:
    with pytest.raises(InvalidArgument):
        context_for_input(Message(name=h.AI_INPUT), session="s", agent_client_id="a")


def test_the_placeholder_is_as_long_as_a_serial() -> None:
    assert len(STEP_START_PLACEHOLDER) == len(format_item(Position(1763000000000, 0), "abcdefghij", 0))


def test_only_an_end_with_reason_error_carries_an_error() -> None:
    ctx = context_of(load("01").triggers()[0][0])
    error = ErrorInfo(42910, 429, "slow down")
    assert "error-code" not in transport(run_end(ctx, RunReason.COMPLETE, error))
    assert transport(run_end(ctx, RunReason.ERROR, error))["error-code"] == "42910"
