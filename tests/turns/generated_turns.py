"""Turns at random, as a mapper of a front end is given them."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from selfhost_transport.turns import chunks as c

MESSAGE = "message-1"
_WORD = st.text("ab ", min_size=1, max_size=4)


@st.composite
def turns(draw: st.DrawFn, *kinds: str) -> list[c.Chunk]:
    """The chunks of one to three steps, whose parts are of these kinds: text, reasoning, tool, data."""
    steps = [draw(_step(number, kinds)) for number in range(draw(st.integers(1, 3)))]
    return [c.Start(), *(chunk for step in steps for chunk in step), c.Finish("stop")]


@st.composite
def _step(draw: st.DrawFn, number: int, kinds: Sequence[str]) -> list[c.Chunk]:
    chunks: list[c.Chunk] = [c.StartStep()]
    for index in range(draw(st.integers(0, 3))):
        name = f"{number}-{index}"
        words = draw(st.lists(_WORD, max_size=4))
        match draw(st.sampled_from(kinds)):
            case "text":
                # Texts that follow each other may have the same id.
                chunks += [c.TextStart("t"), *(c.TextDelta("t", word) for word in words), c.TextEnd("t")]
            case "reasoning":
                deltas = [c.ReasoningDelta(name, word) for word in words]
                chunks += [c.ReasoningStart(name), *deltas, c.ReasoningEnd(name)]
            case "data":
                chunks.append(c.Data("data-note", {"at": name}))
            case _:
                chunks += [c.ToolInputStart(name, "t"), *(c.ToolInputDelta(name, word) for word in words)]
                chunks += [c.ToolInputAvailable(name, "t", {}), c.ToolOutputAvailable(name, 1)]
    return [*chunks, c.FinishStep()]


def given_as(chunks: Sequence[c.Chunk]) -> list[tuple[str, c.Chunk]]:
    """The chunks of one message."""
    return [(MESSAGE, chunk) for chunk in chunks]
