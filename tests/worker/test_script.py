"""The language of the scripted model, and how it keeps time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_worker import AgentError, Reasoning
from agent_worker.scripted.model import ScriptedStream
from agent_worker.scripted.script import ModelScript, parse_script
from agent_worker.scripted.ticks import TICK_S, Ticks
from tests.promptness import assert_quick, prompt


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("script: tokens=500 rate=50", ModelScript(tokens=500, rate=50.0)),
        ("  script:tokens=3", ModelScript(tokens=3)),
        ("script:", ModelScript()),
        ("script: tokens=20 hang_at=10", ModelScript(tokens=20, hang_at=10)),
        ("script: tokens=20 fail_at=0 always=1", ModelScript(tokens=20, fail_at=0, always=True)),
        (
            "script: crash_at=5 reasoning=7 echo_context=1",
            ModelScript(crash_at=5, reasoning=7, echo_context=True),
        ),
        ("script: tool=client approve=1 ignore_abort=0", ModelScript(tool="client", approve=True)),
        ("script: rate=2.5 say=one = two three", ModelScript(rate=2.5, say="one = two three")),
        ("script: say=the whole line\ntokens=2", ModelScript(say="the whole line", tokens=2)),
        ("script:\n tokens=2\n rate=1", ModelScript(tokens=2, rate=1.0)),
    ],
)
def test_directives(text: str, script: ModelScript) -> None:
    assert parse_script(text) == script


@pytest.mark.parametrize("text", ["", "hello", "tokens=5", "a script: tokens=5"])
def test_other_texts_are_no_scripts(text: str) -> None:
    assert parse_script(text) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("script: token=5", "unknown directive 'token=5'"),
        ("script: tokens", "unknown directive 'tokens'"),
        ("script: tokens=many", "tokens=many: a number that is not negative"),
        ("script: tokens=-1", "tokens=-1: a number that is not negative"),
        ("script: rate=nan", "rate=nan: a number"),
        ("script: rate=inf", "rate=inf: a number"),
        ("script: always=yes", "always=yes: 0 or 1"),
        ("script: tool=hammer", "tool=hammer: server or client"),
    ],
)
def test_mistakes_are_explained(text: str, complaint: str) -> None:
    with pytest.raises(AgentError, match="the script cannot be followed") as raised:
        parse_script(text)
    assert complaint in str(raised.value)
    assert (raised.value.info.code, raised.value.info.status_code, raised.value.again) == (40003, 400, False)


@given(st.text())
def test_any_text_is_a_script_or_a_mistake_or_neither(text: str) -> None:
    try:
        parsed = parse_script(f"script:{text}")
    except AgentError:
        return
    assert parsed is not None


async def read(script: ModelScript, attempt: int = 1) -> list[str | Reasoning]:
    return [token async for token in ScriptedStream(script, attempt)]


async def test_tokens_are_decimal_numbers_with_a_space() -> None:
    assert await read(ModelScript(tokens=12)) == [f"{n} " for n in range(12)]


async def test_reasoning_comes_first() -> None:
    assert await read(ModelScript(tokens=1, reasoning=2)) == [Reasoning("r0 "), Reasoning("r1 "), "0 "]


async def test_say_is_streamed_word_by_word() -> None:
    assert await read(ModelScript(say="two  words", tokens=1)) == ["two  ", "words", "0 "]


async def test_failures_happen_at_the_first_attempt_only_unless_always() -> None:
    stream = ScriptedStream(ModelScript(tokens=5, fail_at=2), 1)
    assert [await anext(stream), await anext(stream)] == ["0 ", "1 "]
    with pytest.raises(AgentError, match="failed at token 2"):
        await anext(stream)
    assert len(await read(ModelScript(tokens=5, fail_at=2), attempt=2)) == 5
    with pytest.raises(AgentError):
        await read(ModelScript(tokens=5, fail_at=2, always=True), attempt=2)


async def test_indexes_count_the_answer_and_not_the_reasoning() -> None:
    stream = ScriptedStream(ModelScript(tokens=5, reasoning=3, fail_at=0), 1)
    assert [await anext(stream) for _ in range(3)] == [Reasoning(f"r{n} ") for n in range(3)]
    with pytest.raises(AgentError, match="failed at token 0"):
        await anext(stream)


async def test_a_failure_at_the_end_happens_too() -> None:
    with pytest.raises(AgentError, match="failed at token 3"):
        await read(ModelScript(tokens=3, fail_at=3))


async def test_a_hanging_stream_is_silent_until_it_is_cancelled() -> None:
    stream = ScriptedStream(ModelScript(tokens=5, hang_at=1), 1)
    assert await anext(stream) == "0 "
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(stream)


@prompt
async def test_the_rate_holds_even_if_the_reader_is_late() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    stream = ScriptedStream(ModelScript(tokens=41, rate=200), 1)
    assert await anext(stream) == "0 "
    await asyncio.sleep(0.1)  # a reader that is late; what was due meanwhile comes at once
    caught_up = loop.time()
    assert [await anext(stream) for _ in range(15)][-1] == "15 "
    assert_quick(loop.time() - caught_up, 0.05)
    assert len([token async for token in stream]) == 25
    took = loop.time() - began
    assert took >= 0.2
    assert_quick(took, 0.35)


async def test_streams_of_a_loop_share_its_ticks() -> None:
    loop = asyncio.get_running_loop()
    ticks = Ticks.of(loop)
    assert Ticks.of(loop) is ticks
    due = (int(loop.time() / TICK_S) + 20.2) * TICK_S
    first, cancelled, later = (ticks.at(due + after * TICK_S, after) for after in (0, 0.1, 5))
    cancelled.cancel()
    woken: list[float] = []
    first.add_done_callback(lambda done: woken.append(loop.time()))
    assert await later == 5
    # Never early: what is measured from the schedule would be too short.
    assert due <= woken[0] and due + 5 * TICK_S <= loop.time()
    assert first.done() and cancelled.cancelled()


async def test_a_closed_stream_ends() -> None:
    stream = ScriptedStream(ModelScript(tokens=5), 1)
    await anext(stream)
    await stream.aclose()
    assert stream.closed and [token async for token in stream] == []
