"""A turn as the UI message stream of plain `useChat`: what a reader holds is what the turn is, however it got there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.ui_stream import ChunkJson, UIMessageStream
from tests.turns.generated_turns import MESSAGE, given_as, turns

TURNS = turns("text", "reasoning", "tool")


class Page:
    """A reader that does what the clients' reducer does, and fails where they would."""

    def __init__(self) -> None:
        self.message_id: str | None = None
        self.metadata: dict[str, Any] = {}
        self.parts: list[dict[str, Any]] = []
        self.ended: str | None = None
        self._open: dict[tuple[str, str], dict[str, Any]] = {}

    def read(self, chunks: Sequence[ChunkJson]) -> None:
        for chunk in chunks:
            self._read(chunk)

    def _read(self, chunk: ChunkJson) -> None:
        kind, _, stage = chunk["type"].rpartition("-")
        match chunk["type"]:
            case "start":
                assert self.message_id is None and not self.parts, "a start comes first, and once"
                self.message_id = chunk["messageId"]
                self.metadata |= chunk.get("messageMetadata", {})
            case "text-start" | "reasoning-start":
                part = {"type": kind, "text": ""}
                self.parts.append(part)
                self._open[kind, chunk["id"]] = part
            case "text-delta" | "reasoning-delta":
                self._open[kind, chunk["id"]]["text"] += chunk["delta"]
            case "text-end" | "reasoning-end":
                del self._open[kind, chunk["id"]]
            case "tool-input-start":
                self.parts.append(
                    {"type": "tool", "id": chunk["toolCallId"], "text": "", "state": "streaming"}
                )
            case "tool-input-delta":
                self._tool(chunk)["text"] += chunk["inputTextDelta"]
            case "tool-input-available" | "tool-output-available":
                if stage == "available" and "output" not in chunk and self._find(chunk) is None:
                    self.parts.append({"type": "tool", "id": chunk["toolCallId"], "text": ""})
                self._tool(chunk)["state"] = chunk["type"]
            case "start-step":
                self.parts.append({"type": "step"})
            case "finish-step":
                assert not self._open, "parts are closed before their step"
            case "finish" | "error":
                assert self.ended is None
                self.ended = chunk.get("finishReason", chunk["type"])
                self.metadata |= chunk.get("messageMetadata", {})

    def _find(self, chunk: ChunkJson) -> dict[str, Any] | None:
        return next((part for part in self.parts if part.get("id") == chunk["toolCallId"]), None)

    def _tool(self, chunk: ChunkJson) -> dict[str, Any]:
        found = self._find(chunk)
        assert found is not None, "a tool's chunk needs its call"
        return found


def _whole(chunks: Sequence[c.Chunk]) -> Page:
    page, stream = Page(), UIMessageStream("turn-1")
    page.read(stream.replay(given_as(chunks)))
    page.read(stream.end(TurnStatus.COMPLETED))
    return page


@given(TURNS, st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_a_reader_that_came_in_the_middle_holds_what_one_from_the_start_holds(
    chunks: list[c.Chunk], at: int
) -> None:
    page, stream = Page(), UIMessageStream("turn-1")
    page.read(stream.replay(given_as(chunks[:at])))
    for chunk in chunks[at:]:
        page.read(stream.feed(MESSAGE, chunk))
    page.read(stream.end(TurnStatus.COMPLETED))
    assert page.parts == _whole(chunks).parts
    assert page.ended == "stop"


@given(TURNS, st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=200, deadline=None)
def test_replays_of_the_same_turn_say_nothing_twice(chunks: list[c.Chunk], cuts: list[int]) -> None:
    page, stream = Page(), UIMessageStream("turn-1")
    for cut in [*sorted(cuts), len(chunks)]:
        page.read(stream.replay(given_as(chunks[:cut])))
    page.read(stream.end(TurnStatus.COMPLETED))
    assert page.parts == _whole(chunks).parts


def _text(*words: str, end: bool = True) -> list[c.Chunk]:
    chunks: list[c.Chunk] = [c.StartStep(), c.TextStart("t"), *(c.TextDelta("t", word) for word in words)]
    return [*chunks, c.TextEnd("t"), c.FinishStep()] if end else chunks


def test_an_attempt_that_says_the_same_again_continues_where_the_lost_one_stopped() -> None:
    page, stream = Page(), UIMessageStream("turn-1")
    page.read(stream.replay(given_as(_text("0 ", "1 ", "2 ", end=False))))
    page.read(stream.replay(given_as(_text("0 ", end=False))))
    assert stream.is_behind
    page.read(stream.replay(given_as(_text("0 ", "1 ", "2 ", "3 "))))
    assert not stream.is_behind
    assert [part.get("text") for part in page.parts] == [None, "0 1 2 3 "]


def test_an_attempt_that_says_something_else_begins_a_step_of_its_own() -> None:
    page, stream = Page(), UIMessageStream("turn-1")
    page.read(stream.replay(given_as(_text("0 ", "1 ", end=False))))
    page.read(stream.replay(given_as(_text("other"))))
    page.read(stream.end(TurnStatus.COMPLETED))
    assert [part.get("text") for part in page.parts] == [None, "0 1 ", None, "other"]
    assert page.ended == "stop"


def test_who_continues_a_message_gets_only_what_is_new_of_it() -> None:
    before = _text("waits")
    page, stream = Page(), UIMessageStream("turn-1", skip=len(before))
    page.read(stream.replay(given_as([*before, *_text("goes on")])))
    assert [part.get("text") for part in page.parts] == [None, "goes on"]
    assert page.message_id == MESSAGE


def test_a_stop_closes_what_is_open_and_says_so() -> None:
    page, stream = Page(), UIMessageStream("turn-1")
    page.read(stream.replay(given_as(_text("half", end=False))))
    ending = stream.end(TurnStatus.CANCELLED)
    assert [chunk["type"] for chunk in ending] == ["text-end", "finish-step", "abort", "start-step", "finish"]
    page.read(ending)
    assert page.metadata == {"turnId": "turn-1", "status": "cancelled"}


def test_a_turn_that_is_stopped_before_it_began_makes_no_message() -> None:
    assert [chunk["type"] for chunk in UIMessageStream("turn-1").end(TurnStatus.CANCELLED)] == [
        "abort",
        "finish",
    ]


def test_a_suspended_turn_asks_for_its_calls() -> None:
    assert UIMessageStream("turn-1").end(TurnStatus.SUSPENDED)[-1]["finishReason"] == "tool-calls"


def test_data_that_is_not_kept_is_reported_once_and_never_replayed() -> None:
    stream = UIMessageStream("turn-1")
    note = c.Data("data-progress", {"percent": 10}, transient=True)
    assert stream.feed(MESSAGE, note)[-1]["transient"] is True
    assert stream.replay(given_as([note])) == []


def test_a_reason_that_older_clients_do_not_know_becomes_other() -> None:
    stream = UIMessageStream("turn-1")
    stream.replay(given_as([*_text("x"), c.Finish("interrupted")]))
    assert stream.end(TurnStatus.COMPLETED)[-1] == {"type": "finish", "finishReason": "other"}
