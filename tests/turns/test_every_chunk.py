"""Every kind of chunk and part through every mapper: what one of them leaves out is named here, with the reason.

A new kind of chunk fails these tests until each mapper has been decided about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

import pytest

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as c
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from selfhost_transport.turns.agui_units import AguiUnits
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.decoder import decode_output
from selfhost_transport.turns.encoder import Create, Encoder
from selfhost_transport.turns.encoder_openai import OpenAIEncoder
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.nodes import Node, NodeKind
from selfhost_transport.turns.record import Record
from selfhost_transport.turns.responses_units import ResponseUnits
from selfhost_transport.turns.run_spans import RunSpan
from selfhost_transport.turns.ui_stream import UIMessageStream
from selfhost_transport.turns.values import unpack
from selfhost_transport.turns.withholding import NOTHING, Traffic, traffic_of

CALL: Final = (c.ToolInputAvailable("call", "look", {}),)
# One of each, after what has to come before it.
CHUNKS: Final[dict[type[c.Chunk], tuple[tuple[c.Chunk, ...], c.Chunk]]] = {
    c.TextStart: ((), c.TextStart("t")),
    c.TextDelta: ((c.TextStart("t"),), c.TextDelta("t", "hi")),
    c.TextEnd: ((c.TextStart("t"),), c.TextEnd("t")),
    c.ReasoningStart: ((), c.ReasoningStart("r")),
    c.ReasoningDelta: ((c.ReasoningStart("r"),), c.ReasoningDelta("r", "hm")),
    c.ReasoningEnd: ((c.ReasoningStart("r"),), c.ReasoningEnd("r")),
    c.ToolInputStart: ((), c.ToolInputStart("call", "look")),
    c.ToolInputDelta: ((c.ToolInputStart("call", "look"),), c.ToolInputDelta("call", "{}")),
    c.ToolInputAvailable: ((), *CALL),
    c.ToolInputError: ((), c.ToolInputError("call", "look", "no JSON")),
    c.ToolOutputAvailable: (CALL, c.ToolOutputAvailable("call", 1)),
    c.ToolOutputError: (CALL, c.ToolOutputError("call", "failed")),
    c.ToolApprovalRequest: (CALL, c.ToolApprovalRequest("call", "approval")),
    c.ToolOutputDenied: (CALL, c.ToolOutputDenied("call")),
    c.Start: ((), c.Start("m")),
    c.StartStep: ((), c.StartStep()),
    c.FinishStep: ((c.StartStep(),), c.FinishStep()),
    c.Finish: ((c.Start("m"),), c.Finish("stop")),
    c.MessageMetadata: ((c.Start("m"),), c.MessageMetadata({"a": 1})),
    c.Abort: ((c.Start("m"),), c.Abort("enough")),
    c.Error: ((c.Start("m"),), c.Error("failed")),
    c.File: ((), c.File("https://x/a.png", "image/png")),
    c.SourceUrl: ((), c.SourceUrl("s", "https://x/", "X")),
    c.SourceDocument: ((), c.SourceDocument("s", "application/pdf", "X", "x.pdf")),
    c.Data: ((), c.Data("data-note", {"a": 1})),
    c.Native: ((), c.Native({"type": "response.output_item.done", "item": {"type": "message", "id": "i"}})),
}
# They open, feed or close a stream, and reach readers as what it holds.
STREAMED: Final = {
    c.TextStart, c.TextDelta, c.TextEnd, c.ReasoningStart, c.ReasoningDelta, c.ReasoningEnd, c.ToolInputDelta,
}  # fmt: skip
# How a run begins and ends, its life-cycle messages say.
AROUND: Final = {c.Start, c.Finish, c.MessageMetadata, c.Abort, c.Error}
# Events of another codec in their own form; the UI codec carries chunks only.
FOREIGN: Final = {c.Native}

NO_ITEM_IN_OPENAI: Final = {
    c.Data,
    c.File,
    c.SourceUrl,
    c.SourceDocument,
}  # refused, so that nothing is lost unseen
# The client's own refusal is what readers of the OpenAI codec show; brackets around steps have no item there.
NOTHING_IN_OPENAI: Final = AROUND | {c.StartStep, c.FinishStep, c.ToolOutputDenied}
# A part is not changed by the end of its step, nor by the end of its message.
NO_PART: Final = {c.FinishStep, c.Finish, c.Abort, c.Error}
# The stream of `useChat` writes its own brackets, once.
NO_CHUNK: Final = (AROUND - {c.MessageMetadata}) | FOREIGN
# AG-UI learns of approvals as interrupts, when the run ends.
NO_AGUI_UNIT: Final = AROUND | FOREIGN | {c.ToolApprovalRequest}
# The Responses API has no items for steps, files, sources and data.
NO_RESPONSE_ITEM: Final = AROUND | FOREIGN | NO_ITEM_IN_OPENAI | {c.StartStep, c.FinishStep}

ALL: Final = tuple(CHUNKS)
each_kind = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)


def context() -> TurnContext:
    return TurnContext("session", "turn", "invocation", "assistant", "step")


def fed(kind: type[c.Chunk], take: Callable[[c.Chunk], Any]) -> Any:
    """What the chunk of that kind gives, after what comes before it."""
    before, chunk = CHUNKS[kind]
    for earlier in before:
        take(earlier)
    return take(chunk)


class Log:
    """A turn's output as its log holds it, chunk by chunk."""

    def __init__(self) -> None:
        self.node = Node(NodeKind.RUN, "run")
        self._serial = 0

    def add(self, chunk: c.Chunk) -> None:
        self._serial += 1
        serial = f"{self._serial:06d}"
        headers = Headers({h.STEP_ID: "step"}, {h.KIND: "x"})
        self.node.add(Record(serial, serial, headers, None, "m", chunks=[chunk]))


def test_there_is_one_of_every_kind() -> None:
    assert set(CHUNKS) == set(get_args(c.Chunk))
    assert all(type(chunk) is kind for kind, (_, chunk) in CHUNKS.items())


@each_kind
def test_a_chunk_survives_its_json_form(kind: type[c.Chunk]) -> None:
    chunk = CHUNKS[kind][1]
    if kind not in FOREIGN:
        assert c.chunk_from_json(c.chunk_to_json(chunk)) == chunk


@each_kind
def test_the_ui_codec_carries_it(kind: type[c.Chunk]) -> None:
    encoder = Encoder(context(), "m", "s")
    if kind in FOREIGN:
        with pytest.raises(InvalidArgument):
            fed(kind, encoder.encode)
        return
    (operation,) = fed(kind, encoder.encode)
    if kind in STREAMED | {c.ToolInputStart}:
        assert not isinstance(operation, Create) or operation.stream_key
        return
    headers = h.read_headers(operation.message)
    assert headers is not None
    assert CHUNKS[kind][1] in decode_output(headers, unpack(operation.message))


@each_kind
def test_the_openai_codec_carries_it_or_refuses_it(kind: type[c.Chunk]) -> None:
    encoder = OpenAIEncoder(context(), "m", "s")
    if kind in NO_ITEM_IN_OPENAI:
        with pytest.raises(InvalidArgument):
            fed(kind, encoder.encode)
    else:
        assert bool(fed(kind, encoder.encode)) is (kind not in NOTHING_IN_OPENAI)


@each_kind
def test_a_view_shows_it(kind: type[c.Chunk]) -> None:
    before, log = [], Log()

    def take(chunk: c.Chunk) -> list[dict[str, Any]]:
        log.add(chunk)
        before.append([state.snapshot().to_json() for state in log.node.messages.values()])
        return before[-1]

    after = fed(kind, take)
    changed = after != (before[-2] if len(before) > 1 else [])
    assert kind in STREAMED or changed is (kind not in NO_PART)


@each_kind
def test_a_ui_message_stream_has_it(kind: type[c.Chunk]) -> None:
    stream = UIMessageStream("turn")
    sent = fed(kind, lambda chunk: stream.feed("m", chunk))
    assert bool([one for one in sent if one["type"] != "start"]) is (kind not in NO_CHUNK)


@each_kind
def test_ag_ui_has_it(kind: type[c.Chunk]) -> None:
    units = AguiUnits()
    assert bool(fed(kind, lambda chunk: units.add("m", chunk))) is (kind not in NO_AGUI_UNIT)


@each_kind
def test_responses_has_it(kind: type[c.Chunk]) -> None:
    log = Log()

    def items(chunk: c.Chunk) -> int:
        had = len(ResponseUnits(log.node, RunSpan()).all)
        log.add(chunk)
        return len(ResponseUnits(log.node, RunSpan()).all) - had

    if kind not in STREAMED | {c.ToolInputStart}:
        assert bool(fed(kind, items)) is (kind not in NO_RESPONSE_ITEM)


@each_kind
def test_withholding_knows_what_it_is(kind: type[c.Chunk]) -> None:
    if kind in FOREIGN:
        return
    name = kind.__name__
    expected = (
        Traffic.REASONING if name.startswith("Reasoning") else Traffic.TOOLS if "Tool" in name else None
    )
    for operation in fed(kind, Encoder(context(), "m", "s").encode):
        if isinstance(operation, Create):
            assert traffic_of(operation.message) == (NOTHING if expected is None else {expected})


PARTS: Final[dict[type[ui.Part], ui.Part]] = {
    ui.TextPart: ui.TextPart("hi"),
    ui.ReasoningPart: ui.ReasoningPart("hm"),
    ui.StepStartPart: ui.StepStartPart(),
    ui.FilePart: ui.FilePart("https://x/a.png", "image/png"),
    ui.SourceUrlPart: ui.SourceUrlPart("s", "https://x/", "X"),
    ui.SourceDocumentPart: ui.SourceDocumentPart("s", "application/pdf", "X", "x.pdf"),
    ui.DataPart: ui.DataPart("data-note", {"a": 1}, "n"),
    ui.ToolPart: ui.ToolPart("call", "look", ui.OUTPUT_AVAILABLE, input={}, output=1),
    ui.OtherPart: ui.OtherPart({"type": "of-tomorrow", "a": 1}),
}


def test_a_part_survives_its_json_form() -> None:
    assert set(PARTS) == set(get_args(ui.Part))
    for part in PARTS.values():
        assert ui.part_from_json(ui.part_to_json(part)) == part
    for bare in (ui.SourceUrlPart("s", "https://x/"), ui.SourceDocumentPart("s", "text/plain")):
        assert ui.part_from_json(ui.part_to_json(bare)) == bare
