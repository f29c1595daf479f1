"""pydantic-ai's own ways to end a run: what becomes of the turn, of the model's connection, and of what came before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from pydantic_ai import Agent, CancellationToken, RunContext
from pydantic_ai.exceptions import RunCancelled

from agent_worker.adapters import Failure, pydantic_ai_events
from agent_worker.user_code.errors import AgentError
from selfhost_transport.turns import chunks as p
from tests.adapters import frames as f
from tests.adapters.calls import Clients, chat_model
from tests.adapters.provider import Answer, Provider, Then
from tests.adapters.readers import Reader, closed_in_time, now
from tests.promptness import prompt

SPOKEN = [f.chat(role="assistant", content=""), f.chat(content="word ")]
Events = AbstractAsyncContextManager[AsyncIterable[Any]]


def _is(error: AgentError, failure: Failure) -> None:
    assert (error.info.status_code, error.info.message, error.again) == failure.value


@pytest.mark.parametrize("spoken", [True, False], ids=["speaking", "before the answer"])
@prompt
async def test_a_token_ends_the_run_and_not_the_people(
    spoken: bool, provider: Provider, clients: Clients
) -> None:
    provider.answers = [Answer(SPOKEN if spoken else (), Then.HANG, headers_sent=spoken)]
    token = CancellationToken()
    run: Events = Agent(chat_model(clients.openai)).run_stream_events("hi", cancellation_token=token)
    reader = Reader(pydantic_ai_events.stream(run))
    exchange = await provider.exchange()
    if spoken:
        await reader.spoke.wait()
    began = now()
    token.cancel()
    with pytest.raises(AgentError) as caught:
        await reader.task
    _is(caught.value, Failure.STOPPED)
    assert isinstance(caught.value.__cause__, RunCancelled)
    await closed_in_time(exchange, began)
    assert [chunk.delta for chunk in reader.chunks if isinstance(chunk, p.TextDelta)] == ["word "] * spoken


@prompt
async def test_the_handle_of_a_run_ends_it(provider: Provider, clients: Clients) -> None:
    provider.answers = [Answer(SPOKEN, Then.HANG)]
    async with Agent(chat_model(clients.openai)).run_stream_events("hi") as events:
        reader = Reader(pydantic_ai_events.stream(events))
        await reader.spoke.wait()
        began = now()
        events.cancel()
        with pytest.raises(AgentError) as caught:
            await reader.task
    _is(caught.value, Failure.STOPPED)
    await closed_in_time(await provider.exchange(), began)


async def test_a_tool_ends_the_run_that_called_it(provider: Provider, clients: Clients) -> None:
    agent = Agent(chat_model(clients.openai))

    @agent.tool
    async def give_up(context: RunContext) -> str:
        context.cancel()
        await asyncio.get_running_loop().create_future()
        return "never"

    call = [f.chat(content="hm"), f.chat_call(0, "{}", "c0", "give_up"), f.chat("tool_calls"), f.DONE]
    provider.answers = [Answer(call)]
    chunks: list[p.Chunk] = []
    with pytest.raises(AgentError) as caught:
        async for chunk in pydantic_ai_events.stream(agent.run_stream_events("go")):
            chunks += [chunk]
    _is(caught.value, Failure.STOPPED)
    assert p.ToolInputAvailable("c0", "give_up", {}) in chunks
    assert len(provider.exchanges) == 1


async def test_a_run_that_takes_too_long_is_said_to_be_late(provider: Provider, clients: Clients) -> None:
    provider.answers = [Answer(SPOKEN, Then.HANG)]
    run: Events = Agent(chat_model(clients.openai)).run_stream_events("hi", timeout=0.2)
    reader = Reader(pydantic_ai_events.stream(run))
    with pytest.raises(AgentError) as caught:
        async with asyncio.timeout(5):
            await reader.task
    _is(caught.value, Failure.TIMED_OUT)
    async with asyncio.timeout(2):
        await (await provider.exchange()).closed.wait()


async def test_a_cancelled_turn_ends_the_run_and_its_tools(provider: Provider, clients: Clients) -> None:
    agent, working, ended = Agent(chat_model(clients.openai)), asyncio.Event(), asyncio.Event()

    @agent.tool_plain
    async def work() -> str:
        working.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()
        return "never"

    provider.answers = [Answer([f.chat_call(0, "{}", "c0", "work"), f.chat("tool_calls"), f.DONE])]
    reader = Reader(_chunks(agent))
    async with asyncio.timeout(5):
        await working.wait()
        await reader.cancel()
        await ended.wait()
    assert len(provider.exchanges) == 1


async def _chunks(agent: Agent[None, str]) -> AsyncIterator[p.Chunk]:
    async with pydantic_ai_events.stream(agent.run_stream_events("go")) as stream:
        async for chunk in stream:
            yield chunk
