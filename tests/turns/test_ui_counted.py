"""Chunks that are counted: the n-th is the same for who reads live and who comes late, however the deltas were cut."""

from __future__ import annotations

import random
from typing import Any

import pytest

from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.ui_counted import CountedStream
from selfhost_transport.turns.ui_stream import UIMessageStream

MESSAGE = "m"


def said(chunks_seen: list[str]) -> list[c.Chunk]:
    """Two texts that grow side by side, a call between them, and a last text."""
    out: list[c.Chunk] = [c.StartStep(), c.TextStart("a"), c.TextStart("b")]
    for number, one_chunk in enumerate(chunks_seen):
        out.append(c.TextDelta("ab"[number % 2], one_chunk))
    out += [c.TextEnd("b"), c.TextEnd("a"), c.ToolInputStart("call", "look")]
    out += [c.ToolInputDelta("call", one_chunk) for one_chunk in chunks_seen[:3]]
    out += [
        c.ToolInputAvailable("call", "look", {"q": 1}),
        c.ToolOutputAvailable("call", "found"),
        c.FinishStep(),
    ]
    return [
        *out,
        c.StartStep(),
        c.TextStart("c"),
        *(c.TextDelta("c", one_chunk) for one_chunk in chunks_seen),
    ]


def live(chunks: list[c.Chunk], start: int = 0) -> list[dict[str, Any]]:
    """As a reader gets them who is there from the beginning."""
    stream = UIMessageStream("t")
    counted = CountedStream(stream, start)
    out: list[dict[str, Any]] = []
    for chunk in chunks:
        stream.feed(MESSAGE, chunk)
        out += counted.advance()
    return out + counted.end(stream.end(TurnStatus.CANCELLED))


def late(chunks: list[c.Chunk], start: int = 0) -> list[dict[str, Any]]:
    """As a reader gets them who comes when all was said, with the deltas of each text joined."""
    stream = UIMessageStream("t")
    counted = CountedStream(stream, start)
    stream.replay((MESSAGE, chunk) for chunk in chunks)
    return [*counted.advance(), *counted.end(stream.end(TurnStatus.CANCELLED))]


@pytest.mark.parametrize("seed", range(10))
def test_any_number_of_chunks_seen_is_a_place_to_continue(seed: int) -> None:
    chance = random.Random(seed)
    chunks_seen = ["".join(chance.choices("ab \n漢", k=chance.randint(1, 50))) for _ in range(12)]
    chunks = said(chunks_seen)
    whole = live(chunks)
    assert whole == late(chunks)
    for start in chance.sample(range(len(whole)), 8):
        assert late(chunks, start) == live(chunks, start) == whole[start:]
    texts = "".join(chunk["delta"] for chunk in whole if chunk["type"] == "text-delta" and chunk["id"] == "c")
    assert texts == "".join(chunks_seen)
    assert (whole[0]["type"], whole[-1]["type"]) == ("start", "finish")
