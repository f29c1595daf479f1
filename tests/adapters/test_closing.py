"""CAN-6: when no one wants the answer any more, the provider's connection is closed; also while it is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_worker.adapters import ProviderStream
from agent_worker.user_code.errors import AgentError
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as p
from tests.adapters.calls import WAYS, Clients, Way
from tests.adapters.provider import Answer, Provider, Then
from tests.adapters.readers import Reader, closed_in_time, now
from tests.promptness import prompt

every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
speaking_or_silent = pytest.mark.parametrize("then", [Then.REPEAT, Then.HANG], ids=lambda then: then.value)


@every_way
@speaking_or_silent
@prompt
async def test_cancelling_the_reader(way: Way, then: Then, provider: Provider, clients: Clients) -> None:
    provider.answers = [Answer(way.first_token, then)]
    reader = Reader(way.start(clients))
    await reader.spoke.wait()
    began = now()
    await reader.cancel()
    await closed_in_time(await provider.exchange(), began)


@every_way
@prompt
async def test_cancelling_before_the_provider_has_answered(
    way: Way, provider: Provider, clients: Clients
) -> None:
    provider.answers = [Answer(then=Then.HANG, headers_sent=False)]
    reader = Reader(way.start(clients))
    exchange = await provider.exchange()
    began = now()
    await reader.cancel()
    await closed_in_time(exchange, began)


@every_way
@speaking_or_silent
@prompt
async def test_another_task_closes_the_stream(
    way: Way, then: Then, provider: Provider, clients: Clients
) -> None:
    provider.answers = [Answer(way.first_token, then)]
    stream = way.start(clients)
    reader = Reader(stream)
    await reader.spoke.wait()
    began = now()
    await stream.aclose()
    await closed_in_time(await provider.exchange(), began)
    async with asyncio.timeout(20):
        await reader.task
    assert not reader.task.cancelling()


@every_way
@prompt
async def test_another_task_closes_the_stream_before_the_provider_has_answered(
    way: Way, provider: Provider, clients: Clients
) -> None:
    provider.answers = [Answer(then=Then.HANG, headers_sent=False)]
    stream = way.start(clients)
    reader = Reader(stream)
    exchange = await provider.exchange()
    began = now()
    await stream.aclose()
    await closed_in_time(exchange, began)
    async with asyncio.timeout(20):
        await reader.task
    assert reader.chunks == []


@every_way
@prompt
async def test_leaving_the_stream_between_two_chunks(way: Way, provider: Provider, clients: Clients) -> None:
    provider.answers = [Answer(way.first_token, Then.HANG)]
    async with way.start(clients) as stream:
        async for chunk in stream:
            if isinstance(chunk, p.TextDelta):
                break
        began = now()
    await closed_in_time(await provider.exchange(), began)
    assert [chunk async for chunk in stream] == []


@prompt
async def test_an_agent_that_passes_chunks_on_is_closed_with_its_response(
    provider: Provider, clients: Clients
) -> None:
    provider.answers = [Answer(WAYS[0].first_token, Then.HANG)]

    async def agent() -> AsyncIterator[p.Chunk]:
        async for chunk in WAYS[0].start(clients):
            yield chunk

    answer = agent()
    async for chunk in answer:
        if isinstance(chunk, p.TextDelta):
            break
    began = now()
    await answer.aclose()  # type: ignore[attr-defined]
    await closed_in_time(await provider.exchange(), began)


@prompt
async def test_a_response_that_was_never_read_is_closed(provider: Provider, clients: Clients) -> None:
    from agent_worker.adapters import openai_chat

    provider.answers = [Answer(WAYS[0].first_token, Then.HANG)]
    response = await clients.openai.chat.completions.create(model="m", messages=[], stream=True)
    stream = openai_chat.stream(response)
    began = now()
    await stream.aclose()
    await closed_in_time(await provider.exchange(), began)


async def test_a_call_that_was_never_made_stays_unmade(provider: Provider, clients: Clients) -> None:
    provider.answers = [Answer()]
    for way in WAYS[:3]:
        await way.start(clients).aclose()
    assert provider.exchanges == []


async def test_a_cancel_from_outside_is_not_swallowed_by_a_close(
    provider: Provider, clients: Clients
) -> None:
    provider.answers = [Answer(WAYS[0].first_token, Then.HANG)]
    stream = WAYS[0].start(clients)
    reader = Reader(stream)
    await reader.spoke.wait()
    closing = asyncio.create_task(stream.aclose())
    reader.task.cancel()
    await closing
    with pytest.raises(asyncio.CancelledError):
        await reader.task


async def test_a_stream_has_one_reader(provider: Provider, clients: Clients) -> None:
    provider.answers = [Answer(WAYS[0].first_token, Then.HANG)]
    stream: ProviderStream[object] = WAYS[0].start(clients)
    reader = Reader(stream)
    await reader.spoke.wait()
    with pytest.raises(InvalidArgument):
        await anext(stream)
    await reader.cancel()


@every_way
async def test_a_connection_that_breaks_is_an_error_that_people_understand(
    way: Way, provider: Provider, clients: Clients
) -> None:
    provider.answers = [Answer(way.first_token, Then.CUT)]
    reader = Reader(way.start(clients))
    with pytest.raises(AgentError) as caught:
        await reader.task
    assert caught.value.info.status_code == 502
    assert "send the message again" in caught.value.info.message
