"""The conversation for the model: recorded prompts of the JS SDK, and this project's own policies."""

from __future__ import annotations

from typing import Any

import pytest

from selfhost_transport.turns import ui
from selfhost_transport.turns.prompt import (
    CLOSED_CALL,
    PartialAnswers,
    PromptMessage,
    build_prompt,
    close_tool_calls,
)
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.message import Message
from tests.turns.transcripts import Transcript, load, load_all, transport

DROP, KEEP, PROMPT_ONLY = PartialAnswers.DROP, PartialAnswers.KEEP, PartialAnswers.PROMPT_ONLY

# Prompts that were read at other moments than openings: (position in `wire` of what came next, trigger).
EXTRA = {
    "14-steer-consumed": [(2, "MSG-USER-1"), (13, "MSG-USER-1")],
    "23-adopted-run": [(8, "MSG-USER-1")],
    "34-two-passes-in-one-step": [(13, "MSG-USER-1")],
}
# The SDK hands several waiting steers to the model in reverse; ours keep the order in which they were sent.
REVERSED_STEERS = "34-two-passes-in-one-step"


def prompt_at(messages: list[Message], trigger: str, policy: PartialAnswers) -> list[PromptMessage]:
    tree = SessionTree()
    for message in messages:
        tree.apply(message)
    return build_prompt(tree, trigger, partial_answers=policy)


def moments(transcript: Transcript) -> list[tuple[list[Message], str]]:
    """(messages so far, trigger) for every recorded prompt."""
    if transcript.name in EXTRA:
        return [(transcript.live()[: n - 1], trigger) for n, trigger in EXTRA[transcript.name]]
    return [
        (before, transport(opening)["input-codec-message-id"]) for opening, before in transcript.triggers()
    ]


def recorded() -> list[Any]:
    return [pytest.param(t, id=t.name) for t in load_all() if "agent_prompts" in t.raw]


@pytest.mark.parametrize("transcript", recorded())
def test_policy_drop_gives_the_prompts_of_the_js_sdk(transcript: Transcript) -> None:
    found = [
        [m.message.to_json() for m in prompt_at(messages, trigger, DROP)]
        for messages, trigger in moments(transcript)
    ]
    expected = transcript.raw["agent_prompts"]
    if transcript.name == REVERSED_STEERS:
        expected = [[*prompt[:-2], prompt[-1], prompt[-2]] for prompt in expected]
    # A transcript may record fewer prompts than openings; every recorded one must be among ours, in order.
    assert len(found) >= len(expected)
    assert [prompt for prompt in found if prompt in expected] == expected


def texts(prompt: list[PromptMessage]) -> list[tuple[str, bool]]:
    return [(m.message.text, m.interrupted) for m in prompt]


def test_int_25_the_model_sees_what_it_was_interrupted_in() -> None:
    (messages, trigger) = moments(load("32"))[1]
    assert texts(prompt_at(messages, trigger, KEEP)) == [
        ("First question", False),
        ("partial answer", True),
        ("Second question", False),
    ]


def test_prompt_only_keeps_the_question_of_a_cancelled_answer() -> None:
    (messages, trigger) = moments(load("32"))[1]
    assert texts(prompt_at(messages, trigger, PROMPT_ONLY)) == [
        ("First question", False),
        ("Second question", False),
    ]


def pending_call(state: str, value: Any = None) -> ui.UIMessage:
    known = {} if value is None else {"input": value}
    part = ui.part_from_json({"type": "tool-x", "toolCallId": "c", "state": state, **known})
    return ui.UIMessage("m", "assistant", (ui.TextPart("hm"), part))


@pytest.mark.parametrize("state", sorted(ui.UNANSWERED))
def test_can_23_unanswered_tool_calls_are_closed(state: str) -> None:
    closed = close_tool_calls(pending_call(state, {"q": 1})).to_json()["parts"][1]
    assert closed == {
        "type": "tool-x", "toolCallId": "c", "state": "output-error", "input": {"q": 1}, "errorText": CLOSED_CALL,
    }  # fmt: skip


def test_arguments_cut_in_the_middle_become_an_empty_object() -> None:
    closed = close_tool_calls(pending_call("input-streaming")).to_json()["parts"][1]
    assert closed["input"] == {}


def test_answered_calls_stay_as_they_are() -> None:
    message = pending_call("output-available", {})
    assert close_tool_calls(message) is message


def test_hil_9_a_new_message_beside_a_pending_call_sees_no_dangling_call() -> None:
    for policy in PartialAnswers:
        for messages, trigger in moments(load("49")):
            for entry in prompt_at(messages, trigger, policy):
                parts = entry.message.parts
                assert not [p for p in parts if isinstance(p, ui.ToolPart) and p.state in ui.UNANSWERED]


def test_the_current_turn_keeps_its_open_calls() -> None:
    (messages, trigger) = moments(load("29"))[1]
    (_, answer) = prompt_at(messages, trigger, KEEP)
    assert not answer.interrupted
    assert answer.message.to_json()["parts"][1]["state"] == "approval-responded"


def test_an_unknown_trigger_gives_an_empty_conversation() -> None:
    assert prompt_at(load("01").live(), "no-one", KEEP) == []
