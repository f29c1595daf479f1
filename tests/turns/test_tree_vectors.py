"""Every transcript folded live, and from history in pages of every size, gives the recorded view and runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from selfhost_transport.turns.ui import messages_to_json
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.message import Message
from tests.turns.transcripts import Transcript, load, load_all, view_of

# A recovered stream: the SDK's live view keeps the text it had although the service holds another. Ours shows what
# the service holds, like its late joiner (SES-4).
RECOVERED = "24-append-recovery"


def pages(history: list[Message], size: int) -> Iterable[Message]:
    """Newest page first, each page oldest to newest."""
    for end in range(len(history), 0, -size):
        yield from history[max(0, end - size) : end]


def expected_view(transcript: Transcript) -> Any:
    return transcript.raw["late_joiner"].get("view", transcript.raw["final_view"])


def shown(view: TreeView) -> tuple[Any, Any]:
    return messages_to_json(view.messages()), [run.to_json() for run in view.runs()]


@pytest.mark.parametrize("transcript", load_all(), ids=lambda t: t.name)
def test_live_messages_give_the_recorded_view_and_runs(transcript: Transcript) -> None:
    assert shown(view_of(transcript.live())) == (expected_view(transcript), transcript.raw["final_runs"])


@pytest.mark.parametrize("transcript", load_all(), ids=lambda t: t.name)
def test_history_in_pages_of_every_size_gives_the_same(transcript: Transcript) -> None:
    history = transcript.history()
    for size in range(1, 31):
        view = view_of(pages(history, size))
        assert shown(view) == (expected_view(transcript), transcript.raw["final_runs"]), f"page size {size}"


def test_only_the_recovered_stream_differs_from_the_live_view_of_the_sdk() -> None:
    differing = [t.name for t in load_all() if expected_view(t) != t.raw["final_view"]]
    assert differing == [RECOVERED]


@pytest.mark.parametrize("transcript", load_all(), ids=lambda t: t.name)
def test_everything_delivered_twice_changes_nothing(transcript: Transcript) -> None:
    live, history = transcript.live(), transcript.history()
    twice = [message for message in live for _ in range(2)]
    assert shown(view_of([*twice, *history])) == shown(view_of(live))


def test_tol_16_static_and_dynamic_tools_are_parts_of_their_own_kinds() -> None:
    view = view_of(load("05").live())
    parts = [part for message in view.messages() for part in message.message.to_json()["parts"]]
    tools = {part["type"] for part in parts if "toolCallId" in part}
    assert "dynamic-tool" in tools and {kind for kind in tools if kind.startswith("tool-")}
    assert all("toolName" in part for part in parts if part["type"] == "dynamic-tool")


def test_the_recovered_text_is_the_one_the_service_holds() -> None:
    view = view_of(load("24").live())
    assert view.messages()[-1].message.text == "one two three"
