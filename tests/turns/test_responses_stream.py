"""Responses' events of a turn: numbers that mean the same for every reader, whatever was cut, joined or replaced."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.chunks import (
    Finish,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolOutputAvailable,
)
from selfhost_transport.turns.context import OPENAI_RESPONSES
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.nodes import Node, NodeKind
from selfhost_transport.turns.record import Record, TextBuffer
from selfhost_transport.turns.responses_object import About, ResponseId, is_over, response_json, status_of
from selfhost_transport.turns.responses_stream import ResponseStream
from selfhost_transport.turns.responses_units import ResponseUnits
from selfhost_transport.turns.run_spans import RunSpan
from selfhost_transport.turns.tree import SessionTree
from tests.e2e.openai_models import valid_event, valid_response
from tests.turns.transcripts import Transcript, load, load_all

ID = ResponseId("chat:1", "0b5cbc4e-5b0b-5a3a-8f3e-2f6d2a1a3c11")
Event = dict[str, Any]
EXAMPLES = 10_000 if os.environ.get("SELFHOST_TRANSPORT_LONG") == "1" else 25


class Turn:
    """A turn's output, as its log holds it."""

    def __init__(self) -> None:
        self.node = Node(NodeKind.RUN, "run")
        self._serial = 0
        self._attempt = ""

    def attempt(self) -> None:
        """Another attempt of the one step begins."""
        self._serial += 1
        self._attempt = f"{self._serial:06d}"

    def text(self, kind: str = "text", call: str = "call") -> Record:
        """A text, a reasoning, or a call's arguments that begin to stream."""
        codec = {h.KIND: kind}
        if kind == "tool-input":
            codec |= {"toolCallId": call, "toolName": "look"}
        return self._add(codec, stream=TextBuffer(), status=h.STREAMING)

    def say(self, *chunks: Any) -> None:
        self._add({h.KIND: "x"}, chunks=list(chunks))

    def units(self) -> ResponseUnits:
        return ResponseUnits(self.node, RunSpan())

    def _add(self, codec: dict[str, str], **fields: Any) -> Record:
        self._serial += 1
        transport = {h.STEP_ID: "step", h.STEP_START_SERIAL: self._attempt, h.STREAM_ID: "s"}
        record = Record(
            f"{self._serial:06d}", f"{self._serial:06d}", Headers(transport, codec), None, "m", **fields
        )
        self.node.add(record)
        return record


class Reader:
    """A reader of the events, as strict as the strictest client."""

    def __init__(self, *, validates: bool = True) -> None:
        self._validates = validates
        self.events: list[Event] = []
        self.items: dict[int, Event] = {}
        self.texts: dict[int, str] = {}

    def read(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._validates:
                valid_event(event)
            last = self.events[-1]["sequence_number"] if self.events else -1
            assert event["sequence_number"] > last, event
            self.events.append(event)
            index = event.get("output_index", -1)
            if event["type"] == "response.output_item.added":
                assert index == len(self.items)
                self.items[index] = event["item"]
            elif event["type"] == "response.output_item.done":
                assert event["item"]["id"] == self.items[index]["id"]
                self.items[index] = event["item"]
            elif "delta" in event:
                self.texts[index] = self.texts.get(index, "") + event["delta"]
            elif "text" in event:
                assert event["text"] == self.texts.get(index, "")

    @property
    def cursor(self) -> int:
        return int(self.events[-1]["sequence_number"]) if self.events else -1


def about() -> About:
    return About(ID, "assistant", 1_700_000_000)


def whole(turn: Turn, status: str = "completed", after: int = -1, *, each: bool = False) -> list[Event]:
    stream = ResponseStream(ID.base, after)
    units = turn.units()
    first = list(stream.begin(response_json(about(), "queued", ResponseUnits(None, RunSpan()))))
    first += stream.start(response_json(about(), "in_progress", ResponseUnits(None, RunSpan())))
    return [*first, *stream.finish(units, response_json(about(), status, units), each=each)]


_word = st.text(st.sampled_from("ab 𝄞é\n"), min_size=1, max_size=5)
_item = st.tuples(st.sampled_from(["text", "reasoning", "tool-input"]), st.lists(_word, max_size=4))


@given(st.lists(_item, max_size=4), st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_rsp_3_a_reader_continues_after_any_event(items: list[Any], data: st.DataObject) -> None:
    turn, live = Turn(), Reader()
    stream = ResponseStream(ID.base)
    queued = response_json(about(), "queued", ResponseUnits(None, RunSpan()))
    live.read([*stream.begin(queued), *stream.start(queued)])
    for number, (kind, words) in enumerate(items):
        record = turn.text(kind, f"call-{number}")
        live.read(list(stream.advance(turn.units())))
        for word in words:
            record.extend(word)
            if data.draw(st.booleans()):
                live.read(list(stream.advance()))
        record.status = h.COMPLETE
        live.read(list(stream.advance(turn.units())))
    units = turn.units()
    live.read(list(stream.finish(units, response_json(about(), "completed", units))))
    again = Reader(validates=False)
    again.read(whole(turn, each=True))
    assert again.texts == live.texts
    assert again.items == live.items
    assert again.events[-1] == live.events[-1]
    valid_response(live.events[-1]["response"])
    for at in range(len(live.events)):
        cut = Reader(validates=False)
        cut.read(live.events[: at + 1])
        cut.read(whole(turn, after=cut.cursor))
        assert (cut.texts, cut.items) == (live.texts, live.items)
        helped = Reader(validates=False)
        helped.read(live.events[: at + 1])
        # What the clients' helpers do: read everything, leave out what they have.
        helped.read([event for event in again.events if event["sequence_number"] > helped.cursor])
        assert (helped.texts, helped.items) == (live.texts, live.items)


@given(st.lists(_item, min_size=1, max_size=3), st.lists(_item, max_size=3), st.integers(0, 12))
@settings(max_examples=EXAMPLES, deadline=None)
def test_rsp_14_another_attempt_takes_nothing_back(first: list[Any], second: list[Any], kept: int) -> None:
    turn, live = Turn(), Reader()
    stream = ResponseStream(ID.base)
    queued = response_json(about(), "queued", ResponseUnits(None, RunSpan()))
    live.read([*stream.begin(queued), *stream.start(queued)])
    for attempt in (first, [*first[:kept], *second]):
        turn.attempt()
        for number, (kind, words) in enumerate(attempt):
            record = turn.text(kind, f"call-{number}")
            for word in words:
                record.extend(word)
                live.read(list(stream.advance(turn.units())))
            # The first one is lost where it is.
            record.status = h.COMPLETE if attempt is not first or number < len(first) - 1 else h.CANCELLED
            live.read(list(stream.advance(turn.units())))
    units = turn.units()
    live.read(list(stream.finish(units, response_json(about(), "completed", units))))
    again = Reader(validates=False)
    again.read(whole(turn, each=True))
    assert (again.texts, again.items) == (live.texts, live.items)
    assert again.events[-1] == live.events[-1]
    if kept >= len(first) and not second:
        # It said the same again: that is there once, and whole.
        assert [item.get("status") for item in live.items.values()] == ["completed"] * len(first)


def test_an_attempt_that_says_something_else_begins_another_item() -> None:
    turn = Turn()
    turn.attempt()
    turn.text().extend("one two")
    turn.attempt()
    record = turn.text()
    record.extend("one three")
    record.status = h.COMPLETE
    reader = Reader()
    reader.read(whole(turn))
    assert [(item["status"], item["content"][0]["text"]) for item in reader.items.values()] == [
        ("incomplete", "one two"),
        ("completed", "one three"),
    ]


def test_items_follow_one_after_the_other() -> None:
    turn, reader, stream = Turn(), Reader(), ResponseStream(ID.base)
    reader.read(list(stream.begin(response_json(about(), "queued", ResponseUnits(None, RunSpan())))))
    first, second = turn.text(call="a"), turn.text("tool-input", call="b")
    first.extend("said")
    second.extend("{}")
    reader.read(list(stream.advance(turn.units())))
    assert reader.texts == {0: "said"}
    first.status = h.COMPLETE
    reader.read(list(stream.advance(turn.units())))
    assert reader.texts == {0: "said", 1: "{}"}


def test_a_refusal_and_calls_have_events_of_their_own() -> None:
    turn, reader = Turn(), Reader()
    turn.text("refusal").extend("no")
    turn.say(ToolInputAvailable("c", "look", {"at": 1}), ToolOutputAvailable("c", [1]))
    turn.say(ToolInputAvailable("d", "pay", {}), ToolApprovalRequest("d", "approval"))
    turn.say(Finish("stop", {"usage": {"inputTokens": 3, "outputTokens": 4}}))
    reader.read(whole(turn))
    kinds = [item["type"] for item in reader.items.values()]
    assert kinds == [
        "message",
        "function_call",
        "function_call_output",
        "function_call",
        "mcp_approval_request",
    ]
    assert reader.items[0]["content"] == [{"type": "refusal", "refusal": "no"}]
    assert reader.items[2]["output"] == "[1]"
    response = reader.events[-1]["response"]
    assert (response["usage"]["input_tokens"], response["usage"]["total_tokens"]) == (3, 7)
    valid_response(response)


@pytest.mark.parametrize("status", ["cancelled", "incomplete", "failed", "completed"])
def test_rsp_8_whatever_is_open_is_closed_before_the_last_event(status: str) -> None:
    turn, reader = Turn(), Reader()
    turn.text("reasoning").extend("hm")
    turn.text().extend("half")
    reader.read(whole(turn, status))
    last = reader.events[-1]
    named = {"completed": "response.completed", "failed": "response.failed"}
    assert last["type"] == named.get(status, "response.incomplete")
    assert [item["status"] for item in last["response"]["output"]] == ["incomplete", "incomplete"]
    assert list(reader.items.values()) == last["response"]["output"]


@given(st.text(min_size=1), st.text(min_size=1), st.integers(0, 99_999))
def test_an_id_names_its_kind(session: str, turn: str, number: int) -> None:
    session, turn = session.encode("utf-8", "ignore").decode(), turn.replace("\0", "")
    turn = turn.encode("utf-8", "ignore").decode()
    if session and turn:
        made = ResponseId(session, turn, number)
        assert ResponseId.parse(str(made)) == made


@pytest.mark.parametrize(
    "text", ["", "resp_", "resp_%00", "resp_YQ", "msg_1", "resp_" + "A" * 5000, "résp", f"{ID} "]
)
def test_other_ids_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        ResponseId.parse(text)


def _response(tree: SessionTree, turn_id: str, number: int) -> tuple[str, ResponseUnits] | None:
    node = tree.run_node(turn_id)
    span = ResponseId("chat", turn_id, number).span(node)
    if span is None:
        return None
    units = ResponseUnits(node, span)
    return status_of(tree.turn(turn_id), span, units), units


def _follow(stream: ResponseStream, found: tuple[str, ResponseUnits] | None, asked: About) -> list[Event]:
    if found is None:
        return []
    status, units = found
    if stream.number < 0:
        list(stream.begin(response_json(asked, "queued", ResponseUnits(None, RunSpan()))))
    if is_over(status):
        return list(stream.finish(units, response_json(asked, status, units)))
    return list(stream.advance(units))


@pytest.mark.parametrize("transcript", [*load_all(), *load_all(OPENAI_RESPONSES)], ids=lambda one: one.name)
def test_rsp_8_every_event_of_every_transcript_is_described(transcript: Transcript) -> None:
    whole = SessionTree("chat")
    for message in transcript.live():
        whole.apply(message)
    history = SessionTree("chat")
    for message in transcript.history():
        history.apply(message)
    for run in whole.turns():
        number = 0
        while (found := _response(whole, run.run_id, number)) is not None:
            asked = About(ResponseId("chat", run.run_id, number), "assistant", 1)
            live, tree, stream = Reader(), SessionTree("chat"), ResponseStream(asked.id.base)
            for message in transcript.live():
                tree.apply(message)
                now = _response(tree, run.run_id, number)
                live.read(_follow(stream, now, asked))
                if now is not None and is_over(now[0]):
                    break
            valid_response(response_json(asked, *found))
            stored = _response(history, run.run_id, number)
            if stored is not None and is_over(stored[0]):
                again = Reader()
                again.read(_follow(ResponseStream(asked.id.base), stored, asked))
                # The author of 24 has lost an append, and replaces the text when it is complete.
                if not transcript.name.startswith("24"):
                    assert (again.items, again.texts) == (live.items, live.texts)
                    assert again.events[-1] == live.events[-1]
                assert again.events[-1]["response"] == live.events[-1]["response"]
            number += 1


def test_what_openais_codec_says_is_said_again() -> None:
    tree = SessionTree("chat")
    for message in load("60").live():
        tree.apply(message)
    kinds: list[str] = []
    for run in tree.turns():
        found = _response(tree, run.run_id, 0)
        assert found is not None
        kinds += [item["type"] for item in response_json(about(), *found)["output"]]
    assert "message" in kinds
    assert "function_call" in kinds


def test_a_text_that_its_author_replaces_is_right_where_it_ends() -> None:
    turn, reader, stream = Turn(), Reader(), ResponseStream(ID.base)
    reader.read(list(stream.begin(response_json(about(), "queued", ResponseUnits(None, RunSpan())))))
    record = turn.text()
    record.extend("one three")
    reader.read(list(stream.advance(turn.units())))
    record.stream = TextBuffer("one two three")
    reader.read(list(stream.advance(turn.units())))
    assert reader.texts == {0: "one three"}
    record.status = h.COMPLETE
    events = list(stream.advance(turn.units()))
    assert next(event.get("text") for event in events) == "one two three"
    whole_events = [event for event in whole(turn) if event["type"] == "response.output_item.done"]
    assert events[-1]["sequence_number"] + 1 == whole_events[0]["sequence_number"]


def test_what_is_given_up_does_not_hold_up_what_follows() -> None:
    turn, reader, stream = Turn(), Reader(), ResponseStream(ID.base)
    reader.read(list(stream.begin(response_json(about(), "queued", ResponseUnits(None, RunSpan())))))
    turn.attempt()
    turn.text().extend("one two")
    reader.read(list(stream.advance(turn.units())))
    turn.attempt()
    turn.text().extend("one x")
    reader.read(list(stream.advance(turn.units())))
    assert reader.texts == {0: "one two", 1: "one x"}
    assert reader.items[0]["status"] == "incomplete"


def test_a_part_that_was_closed_as_cancelled_is_over_when_the_attempt_goes_on() -> None:
    turn, reader, stream = Turn(), Reader(), ResponseStream(ID.base)
    reader.read(list(stream.begin(response_json(about(), "queued", ResponseUnits(None, RunSpan())))))
    record = turn.text()
    record.extend("half")
    record.status = h.CANCELLED
    reader.read(list(stream.advance(turn.units())))
    assert reader.items[0]["status"] == "in_progress"
    turn.say(ToolInputAvailable("c", "look", {}))
    reader.read(list(stream.advance(turn.units())))
    assert [item["status"] for item in reader.items.values()] == ["incomplete", "completed"]
