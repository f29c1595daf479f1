"""A turn as AG-UI events: a reader that is cut anywhere, and goes on, holds what one from the start holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import agui_stream
from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.agui_stream import AguiStream, SentEvent
from selfhost_transport.turns.agui_units import MAX_CONTENT, event_of
from selfhost_transport.turns.run_spans import Pending, finished
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.status import TurnStatus
from tests.turns.generated_turns import MESSAGE, given_as, turns

TURNS = turns("text", "reasoning", "tool", "data")


class Client:
    """A reader that holds what a strict client holds, and fails where that would."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, str], str] = {}
        self.events: list[str] = []
        self._open: set[tuple[str, str]] = set()

    def read(self, sent: Sequence[SentEvent]) -> None:
        for _, event in sent:
            self._read(event)

    def _read(self, event: dict[str, Any]) -> None:
        kind, _, stage = event["type"].rpartition("_")
        key = kind, event.get("messageId") or event.get("toolCallId") or event.get("stepName") or ""
        match stage:
            case "START" | "STARTED":
                assert key not in self._open, f"begun twice: {event}"
                self._open.add(key)
                self.texts.setdefault(key, "")
            case "CONTENT" | "ARGS":
                assert key in self._open, f"not begun: {event}"
                self.texts[key] += event["delta"]
            case "END" | "FINISHED":
                assert key in self._open, f"not open: {event}"
                self._open.remove(key)
            case _:
                self.events.append(event.get("messageId") or event["type"])

    @property
    def is_closed(self) -> bool:
        return not self._open


def _live(chunks: Sequence[c.Chunk]) -> list[SentEvent]:
    stream = AguiStream()
    sent = stream.sync([])
    for chunk in chunks:
        sent += stream.feed(MESSAGE, chunk)
    return sent


def _read(sent: Sequence[SentEvent]) -> Client:
    client = Client()
    client.read(sent)
    return client


@given(TURNS)
@settings(max_examples=50, deadline=None)
def test_a_reader_continues_after_every_event_and_holds_the_same(chunks: list[c.Chunk]) -> None:
    sent = _live(chunks)
    whole = _read(sent)
    assert whole.is_closed
    for at, (cursor, _) in enumerate(sent):
        assert cursor is not None
        stream = AguiStream()
        stream.resume(f"a position/{cursor}")
        client = _read(sent[: at + 1])
        client.read(stream.sync(given_as(chunks)))
        assert not stream.must_restart
        assert (client.texts, client.events) == (whole.texts, whole.events)
        assert client.is_closed


@given(TURNS, st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_a_reader_that_came_late_or_read_in_chunks_holds_the_same(
    chunks: list[c.Chunk], first: int, more: int
) -> None:
    client, stream = Client(), AguiStream()
    client.read(stream.sync(given_as(chunks[:first])))
    client.read(stream.sync(given_as(chunks[: first + more])))
    for chunk in chunks[first + more :]:
        client.read(stream.feed(MESSAGE, chunk))
    whole = _read(_live(chunks))
    assert (client.texts, client.events) == (whole.texts, whole.events)
    assert client.is_closed


def test_a_call_without_deltas_keeps_its_input_for_a_reader_that_came_late() -> None:
    begun: list[c.Chunk] = [c.Start(), c.StartStep(), c.ToolInputStart("call", "look")]
    client, stream = Client(), AguiStream()
    for _ in range(2):
        client.read(stream.sync(given_as(begun)))
    client.read(stream.feed(MESSAGE, c.ToolInputAvailable("call", "look", {})))
    assert client.texts["TOOL_CALL", "call"] == "{}"


@given(TURNS, st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_after_a_snapshot_a_message_is_begun_again_only_where_it_goes_on(
    chunks: list[c.Chunk], at: int
) -> None:
    before, stream = _read(_live(chunks[:at])), AguiStream()
    stream.adopt(given_as(chunks[:at]))
    client = Client()
    client.texts, client.events = dict(before.texts), list(before.events)
    client.read(stream.sync(given_as(chunks)))
    whole = _read(_live(chunks))
    assert (client.texts, client.events) == (whole.texts, whole.events)
    assert client.is_closed


@given(TURNS, st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_a_stop_closes_what_is_open_after_which_each_cursor_continues(chunks: list[c.Chunk], at: int) -> None:
    stream = AguiStream()
    sent = stream.sync(given_as(chunks[:at]))
    closing = stream.close()
    assert _read([*sent, *closing]).is_closed
    for number, (cursor, _) in enumerate(closing):
        again = AguiStream()
        assert cursor is not None
        again.resume(cursor)
        assert again.sync(given_as(chunks[:at])) == []
        assert _read([*sent, *closing[: number + 1], *again.close()]).is_closed


def _text(*words: str) -> list[c.Chunk]:
    return [c.StartStep(), c.TextStart("t"), *(c.TextDelta("t", word) for word in words)]


def test_what_an_attempt_said_otherwise_needs_a_snapshot() -> None:
    stream = AguiStream()
    stream.sync(given_as(_text("0 ", "1 ")))
    assert stream.sync(given_as(_text("other"))) == []
    assert stream.must_restart
    assert [event["type"] for _, event in stream.close()] == ["TEXT_MESSAGE_END", "STEP_FINISHED"]
    stream.adopt(given_as(_text("other")))
    assert [event["type"] for _, event in stream.sync(given_as(_text("other", " more")))] == [
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
    ]


def test_a_cursor_in_text_that_was_replaced_needs_a_snapshot() -> None:
    stream = AguiStream()
    stream.sync(given_as(_text("0 ", "1 ")))
    for chunks in (_text("0 ", "2 "), _text("0 "), [c.StartStep()]):
        again = AguiStream()
        again.resume(stream.cursor)
        assert again.sync(given_as(chunks)) == []
        assert again.must_restart


def test_a_long_text_is_several_events_each_of_which_a_reader_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agui_stream, "_MAX_DELTA", 4)
    chunks = [*_text("0123", "456789", "x"), c.TextEnd("t"), c.FinishStep()]
    sent = AguiStream().sync(given_as(chunks))
    assert [event["delta"] for _, event in sent if "delta" in event] == ["0123", "4567", "89x"]
    for at, (cursor, _) in enumerate(sent):
        stream, client = AguiStream(), _read(sent[: at + 1])
        stream.resume(cursor or "")
        client.read(stream.sync(given_as(chunks)))
        assert client.texts == {("TEXT_MESSAGE", MESSAGE): "0123456789x", ("STEP", "step-1"): ""}


def test_a_result_that_clients_could_not_read_is_named() -> None:
    event = event_of(c.ToolOutputAvailable("call", "x" * (MAX_CONTENT + 1)))
    assert (
        event is not None
        and event["content"] == "[a result of 4,194,305 bytes: read it from the session's messages]"
    )
    event = event_of(c.ToolOutputAvailable("call", "x" * MAX_CONTENT))
    assert event is not None and len(event["content"]) == MAX_CONTENT


def test_an_id_that_is_none_is_refused() -> None:
    for text in ("", "nonsense", "1.2~0", "1.0:~0", "/1"):
        with pytest.raises(InvalidArgument):
            AguiStream().resume(text)


def test_two_texts_of_one_message_are_written_one_at_a_time() -> None:
    chunks: list[c.Chunk] = [c.TextStart("a"), c.TextDelta("a", "1"), c.TextStart("b"), c.TextDelta("b", "2")]
    client = _read(
        _live([*chunks, c.TextDelta("a", "3"), c.TextEnd("a"), c.TextDelta("b", "4"), c.TextEnd("b")])
    )
    assert client.texts == {("TEXT_MESSAGE", MESSAGE): "1234"}
    assert client.is_closed


def test_calls_that_stream_side_by_side_keep_the_order_of_the_log() -> None:
    live: list[c.Chunk] = [
        c.ToolInputStart("a", "t"), c.ToolInputDelta("a", "{"), c.ToolInputStart("b", "t"),
        c.ToolInputDelta("b", "["), c.ToolInputDelta("a", "}"), c.ToolInputAvailable("a", "t", {}),
        c.ToolInputDelta("b", "]"), c.ToolInputAvailable("b", "t", []),
    ]  # fmt: skip
    log = [chunk for name in "ab" for chunk in live if getattr(chunk, "tool_call_id", "") == name]
    sent = _live(live)
    for at, (cursor, _) in enumerate(sent):
        stream, client = AguiStream(), _read(sent[: at + 1])
        stream.resume(cursor or "")
        client.read(stream.sync(given_as(log)))
        assert client.texts == {("TOOL_CALL", "a"): "{}", ("TOOL_CALL", "b"): "[]"}


def test_data_that_is_not_kept_has_no_cursor() -> None:
    note = c.Data("data-progress", {"percent": 10}, transient=True)
    assert AguiStream().feed(MESSAGE, note) == [
        (None, {"type": "CUSTOM", "name": "progress", "value": {"percent": 10}})
    ]


def test_state_of_an_agent_is_reported_as_state() -> None:
    chunks: list[c.Chunk] = [
        c.Data("data-state-snapshot", {"a": 1}),
        c.Data("data-state-delta", [{"op": "replace", "path": "/a", "value": 2}]),
    ]
    assert [event["type"] for _, event in _live(chunks)] == ["STATE_SNAPSHOT", "STATE_DELTA"]


@pytest.mark.parametrize("old", [False, True])
def test_a_stop_is_never_reported_as_a_success(old: bool) -> None:
    event = finished(
        "thread", "run", RunInfo("turn", TurnStatus.CANCELLED), Pending(), suspended=False, old=old
    )
    assert event.get("outcome") == (None if old else {"type": "cancelled"})
    assert event["metadata"] == {"turnId": "turn", "status": "cancelled"}


def test_an_interrupt_names_the_calls_that_wait_as_well() -> None:
    pending = Pending({"call-2": MESSAGE}, {"call-1": ("approval-1", MESSAGE)})
    event = finished(
        "thread", "run", RunInfo("turn", TurnStatus.SUSPENDED), pending, suspended=True, old=True
    )
    assert [one["id"] for one in event["outcome"]["interrupts"]] == ["approval-1"]
    assert event["metadata"]["pendingToolCallIds"] == ["call-2"]
