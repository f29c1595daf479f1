"""From the user's cancel to the model's connection: gateway, worker and provider as they are deployed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from selfhost_transport import Turn, TurnStatus
from selfhost_transport.turns import ui
from selfhost_transport.turns.values import to_text
from tests.adapters import frames as f
from tests.adapters import strict
from tests.adapters.agent import PROVIDER
from tests.adapters.provider import Answer, Provider, Then
from tests.e2e.stage import Stage
from tests.processes import wait_until
from tests.promptness import assert_quick, prompt

LIMIT_S = 0.25
PATIENCE_S = 40.0


@pytest.fixture
async def stage(
    redis_url: str, redis_prefix: str, tmp_path: Path, provider: Provider
) -> AsyncIterator[Stage]:
    """A gateway, and a worker of the agent that asks the provider."""
    env = {PROVIDER: f"{provider.url}/v1"}
    running = await Stage.make(redis_url, redis_prefix, tmp_path, gateways=1, workers=0, env=env)
    try:
        await running.add_worker("tests.adapters.agent:worker")
        yield running
    finally:
        await running.close()


async def spoken(turn: Turn, text: str) -> None:
    await wait_until(lambda: text in turn.text, PATIENCE_S, f"{text!r} of {turn}")


@pytest.mark.parametrize("then", [Then.REPEAT, Then.HANG], ids=lambda then: then.value)
@prompt
async def test_can_6_a_cancel_closes_the_models_connection(
    then: Then, stage: Stage, provider: Provider
) -> None:
    provider.answers = [Answer([f.chat(content="word ")], then)]
    async with stage.connect(stage.session()) as client:
        turn = await client.view.send("hi")
        await spoken(turn, "word ")
        exchange = await provider.exchange()
        assert not exchange.closed.is_set()
        began = asyncio.get_running_loop().time()
        await client.cancel(turn.turn_id)
        async with asyncio.timeout(5):
            await exchange.closed.wait()
            await turn.ended
    assert_quick(exchange.closed_at - began, LIMIT_S)
    assert turn.status is TurnStatus.CANCELLED


async def test_int_25_the_model_sees_what_it_was_interrupted_in(stage: Stage, provider: Provider) -> None:
    provider.answers = [
        Answer([f.chat(content="the first ")], Then.HANG),
        Answer([f.chat(content="better"), f.chat("stop"), f.DONE]),
    ]
    async with stage.connect(stage.session()) as client:
        first = await client.view.send("one")
        await spoken(first, "the first ")
        await client.cancel(first.turn_id)
        second = await client.view.send("two")
        await second.ended
    assert (second.status, second.text) == (TurnStatus.COMPLETED, "better")
    given = (await provider.exchange(1)).body["messages"]
    assert [message["role"] for message in given] == ["user", "assistant", "user"]
    assert given[1]["content"] == "the first "
    assert "interrupted" in given[2]["content"] and given[2]["content"].endswith("two")


async def test_trn_19_what_the_provider_says_stays_in_the_worker(stage: Stage, provider: Provider) -> None:
    body = {"error": {"message": "key sk-live-1234", "type": "rate_limit_error", "code": None}}
    provider.answers = [Answer(status=429, body=body)]
    async with stage.connect(stage.session()) as client:
        turn = await client.view.send("hi")
        await turn.ended
        assert turn.status is TurnStatus.FAILED
        assert turn.error is not None
        assert turn.error.message.startswith("the model provider is rate-limiting this agent")


async def test_sdk_4_tools_between_two_model_calls_are_one_message(stage: Stage, provider: Provider) -> None:
    provider.check = strict.chat
    provider.answers = [
        Answer(
            [
                f.chat(reasoning_content="hm"),
                f.chat_call(0, "", "c0", "add"),
                f.chat_call(0, '{"a":2}'),
                f.chat("tool_calls"),
                f.DONE,
            ]
        ),
        Answer([f.chat(content="It is 4."), f.chat("length"), f.DONE]),
    ]
    async with stage.connect(stage.session()) as client:
        turn = await client.view.send("2 + 2?")
        await turn.ended
    assert turn.status is TurnStatus.COMPLETED
    question, answer = turn.messages
    assert question.message.text == "2 + 2?"
    assert answer.message.parts == (
        ui.StepStartPart(),
        ui.ReasoningPart("hm"),
        ui.ToolPart("c0", "add", ui.OUTPUT_AVAILABLE, input={"a": 2}, output="4"),
        ui.StepStartPart(),
        ui.TextPart("It is 4."),
    )
    assert (await provider.exchange(1)).body["messages"][-1]["content"] == "4"


async def test_ten_megabytes_of_arguments_reach_the_session(stage: Stage, provider: Provider) -> None:
    text = "x" * (10 << 20)
    provider.answers = [
        Answer(
            [f.chat_call(0, to_text({"text": text}), "c0", "save"), f.chat("tool_calls"), f.DONE],
        ),
        Answer([f.chat(content="Saved."), f.chat("stop"), f.DONE]),
    ]
    async with stage.connect(stage.session()) as client:
        turn = await client.view.send("save it")
        async with asyncio.timeout(PATIENCE_S):
            await turn.ended
        assert turn.status is TurnStatus.COMPLETED
        call = turn.messages[-1].message.parts[1]
        assert isinstance(call, ui.ToolPart) and call.input == {"text": text}


@prompt
async def test_a_provider_that_only_keeps_the_connection_alive_is_cancelled_at_once(
    stage: Stage, provider: Provider
) -> None:
    """There is always another byte, so that no time-out of a client ends it."""
    provider.answers = [Answer([f.chat(content="word "), b": keep-alive\n\n"], Then.REPEAT)]
    async with stage.connect(stage.session()) as client:
        turn = await client.view.send("hi")
        await spoken(turn, "word ")
        exchange = await provider.exchange()
        began = asyncio.get_running_loop().time()
        await client.cancel(turn.turn_id)
        async with asyncio.timeout(5):
            await exchange.closed.wait()
            await turn.ended
    assert_quick(exchange.closed_at - began, LIMIT_S)
