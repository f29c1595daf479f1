"""Sessions written with the OpenAI Responses codec read as UI messages (protocol section 6; v60, v61)."""

from __future__ import annotations

from typing import Any

import pytest

from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.message import Message
from tests.turns.transcripts import Transcript, load, load_all, view_of

OPENAI = "openai-responses"


def parts(view: TreeView) -> list[list[dict[str, Any]]]:
    return [message.message.to_json()["parts"] for message in view.messages()]


def test_text_reasoning_and_a_server_tool() -> None:
    call = {
        "type": "tool-get_weather", "toolCallId": "call_1", "state": "output-available",
        "input": {"city": "Paris"}, "output": {"celsius": 21},
    }  # fmt: skip
    assert parts(view_of(load("60").live())) == [
        [{"type": "text", "text": "Weather in Paris?"}],
        [{"type": "reasoning", "text": "Look it up."}, call],
        [{"type": "text", "text": "21 degrees in Paris."}],
    ]


def test_answers_by_clients_and_a_refusal() -> None:
    _, calls, (refusal,) = parts(view_of(load("61").live()))
    assert [(c["toolCallId"], c["state"]) for c in calls] == [
        ("call_1", "output-denied"),
        ("call_2", "output-available"),
        ("call_3", "output-error"),
    ]
    assert refusal == {"type": "text", "text": "Cannot pay."}


@pytest.mark.parametrize("transcript", load_all(OPENAI), ids=lambda t: t.name)
def test_the_runs_are_the_recorded_ones_live_and_in_pages(transcript: Transcript) -> None:
    live, history = view_of(transcript.live()), transcript.history()
    assert [run.to_json() for run in live.runs()] == transcript.raw["final_runs"]
    for size in range(1, 31):
        paged: list[Message] = []
        for end in range(len(history), 0, -size):
            paged += history[max(0, end - size) : end]
        view = view_of(paged)
        assert (parts(view), view.runs()) == (parts(live), live.runs())
