"""The encoder against the recorded `ai-output` messages of every agent stream (protocol section 5.1)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.context import STEP_START_PLACEHOLDER
from selfhost_transport.turns.encoder import Append, Close, Create, Encoder, OutputOperation
from tests.turns.recorded_streams import (
    CTX,
    HOOK_WRITES,
    UNPUBLISHED,
    flat,
    recorded_outputs,
)
from tests.turns.transcripts import Operation, Transcript, context_of, load, load_all, transport


def encode_stream(
    transcript: Transcript, stream: dict[str, Any], outputs: list[Operation]
) -> list[OutputOperation]:
    first = outputs[0].message
    steers = json.loads(transport(first).get("steer-codec-message-ids", "[]"))
    encoder = Encoder(
        context_of(first), stream["codecMessageId"], transport(first)["step-start-serial"], steers
    )
    ops: list[OutputOperation] = []
    for chunk in stream["chunks"]:
        if UNPUBLISHED.get(transcript.name) != chunk["type"]:
            ops += encoder.encode(p.chunk_from_json(chunk))
    # A source that threw leaves its streams open; one that ended or was cancelled closes them.
    if stream.get("ended") != "failed":
        note = HOOK_WRITES.get(transcript.name)
        if note:
            ops += encoder.encode(p.TextDelta(stream["chunks"][-1]["id"], note))
        crashed = stream.get("ended") == "open" and not any(o.raw["op"] == "append" and
            transport(o.message)["status"] == "cancelled" for o in outputs)  # fmt: skip
        if not crashed:
            ops += encoder.cancel()
    return ops


def streams() -> list[Any]:
    """Every recorded pipe that published something, as a test parameter."""
    return [
        pytest.param(transcript, stream, id=f"{transcript.name}-{stream['codecMessageId']}")
        for transcript in load_all()
        for stream in transcript.raw.get("agent_streams", ())
        if "codecMessageId" in stream
    ]


@pytest.mark.parametrize(("transcript", "stream"), streams())
def test_a_stream_of_chunks_becomes_the_recorded_messages(
    transcript: Transcript, stream: dict[str, Any]
) -> None:
    outputs = recorded_outputs(transcript, stream["codecMessageId"])
    expected = [
        {
            "op": "append" if operation.raw.get("name") is None else "publish",
            **({"name": operation.raw["name"]} if operation.raw.get("name") else {}),
            "data": operation.raw.get("data"),
            **({"encoding": operation.raw.get("encoding")} if operation.raw.get("name") else {}),
            "extras": json.dumps(operation.raw["extras"]),
        }
        for operation in outputs
    ]
    ops = encode_stream(transcript, stream, outputs)
    keys = {op.stream_key for op in ops if isinstance(op, Create) and op.stream_key}
    assert flat(ops, keys) == expected


@pytest.mark.parametrize("transcript", load_all(), ids=lambda t: t.name)
def test_chunks_survive_the_way_through_dataclasses(transcript: Transcript) -> None:
    for stream in transcript.raw.get("agent_streams", ()):
        for chunk in stream["chunks"]:
            assert p.chunk_to_json(p.chunk_from_json(chunk)) == chunk


def test_the_stored_closing_is_what_a_cancel_writes() -> None:
    encoder = Encoder(CTX, "a", STEP_START_PLACEHOLDER)
    (create,) = encoder.encode(p.TextStart("t"))
    assert isinstance(create, Create)
    (close,) = encoder.cancel()
    assert close == Close(create.stream_key or "", create.closing or {})
    assert encoder.open_streams == ()


def test_deltas_share_one_extras_object() -> None:
    encoder = Encoder(CTX, "a", STEP_START_PLACEHOLDER)
    encoder.encode(p.TextStart("t"))
    (first,), (second,) = encoder.encode(p.TextDelta("t", "x")), encoder.encode(p.TextDelta("t", "y"))
    assert isinstance(first, Append)
    assert isinstance(second, Append)
    assert first.extras is second.extras


def test_stream_keys_differ_when_an_id_is_used_again() -> None:
    encoder = Encoder(CTX, "a", STEP_START_PLACEHOLDER)
    keys = []
    for _ in range(2):
        (create,) = encoder.encode(p.TextStart("t"))
        assert isinstance(create, Create)
        keys.append(create.stream_key)
        encoder.encode(p.TextEnd("t"))
    assert len(set(keys)) == 2


@pytest.mark.parametrize(
    "chunk", [p.TextDelta("no", "x"), p.TextEnd("no"), p.ToolInputDelta("no", "{"), p.TextStart("t")]
)
def test_chunks_out_of_sequence_are_refused(chunk: p.Chunk) -> None:
    encoder = Encoder(CTX, "a", STEP_START_PLACEHOLDER)
    encoder.encode(p.TextStart("t"))
    with pytest.raises(InvalidArgument):
        encoder.encode(chunk)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"type": "custom"},
        {"type": "reasoning-file"},
        {"type": "text-start"},
        {"type": "text-delta", "id": "t", "delta": 1},
        {"type": "tool-input-start", "toolCallId": "c", "toolName": "n", "dynamic": "yes"},
    ],
)
def test_what_cannot_be_carried_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        p.chunk_from_json(value)


def test_unknown_finish_reasons_read_stop() -> None:
    (op,) = Encoder(CTX, "a", STEP_START_PLACEHOLDER).encode(p.Finish("surprise"))
    assert isinstance(op, Create)
    assert (op.message.extras or {})["ai"]["codec"]["finishReason"] == "stop"


def test_the_first_transcript_is_the_plain_one() -> None:
    assert load("01").name == "01-plain-text"
