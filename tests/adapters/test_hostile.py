"""Providers that misbehave: their streams end in an error that people understand, at a bounded cost, or are read all the same."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import Any

import pytest

from agent_worker.adapters import Failure, openai_chat
from agent_worker.adapters.event_stream import MAX_PENDING_BYTES, EventStreamDecoder
from agent_worker.user_code.errors import AgentError
from selfhost_transport.turns import chunks as p
from tests.adapters import frames as f
from tests.adapters.calls import WAYS, Clients, Way
from tests.adapters.provider import Answer, Provider, Then, data
from tests.adapters.readers import Reader, closed_in_time, now
from tests.promptness import prompt

CHAT, RESPONSES, CLAUDE = WAYS[:3]
lean_ways = pytest.mark.parametrize("way", WAYS[:3], ids=lambda way: way.name)
MB = 1 << 20


async def _read(way: Way, clients: Clients) -> tuple[list[p.Chunk], AgentError | None]:
    chunks: list[p.Chunk] = []
    try:
        async for chunk in way.start(clients):
            chunks += [chunk]
    except AgentError as error:
        return chunks, error
    return chunks, None


def _text(chunks: list[p.Chunk]) -> str:
    return "".join(chunk.delta for chunk in chunks if isinstance(chunk, p.TextDelta))


def test_an_event_in_many_small_chunks_costs_no_more_than_in_one() -> None:
    body = b"data: " + b"x" * (4 * MB) + b"\n\n"
    decoder = EventStreamDecoder()
    began = time.process_time()
    found = [event for at in range(0, len(body), 256) for event in decoder.feed(body[at : at + 256])]
    # Read again with each chunk, it would be 32 GB, and seconds in which the worker does nothing else.
    assert time.process_time() - began < 1.5
    assert found == [(b"", body[6:-2])]


@lean_ways
async def test_an_event_without_an_end_is_given_up(way: Way, provider: Provider, clients: Clients) -> None:
    endless = [b"data: " + b"x" * MB] + [b"x" * MB] * (MAX_PENDING_BYTES // MB + 2)
    provider.answers = [Answer([*way.first_token, *endless], Then.REPEAT)]
    chunks, error = await _read(way, clients)
    assert error is not None and error.info.message == Failure.UNUSABLE.message
    assert _text(chunks) == "word "
    async with asyncio.timeout(5):
        await (await provider.exchange()).closed.wait()


@lean_ways
async def test_a_compressed_body_however_it_is_cut(way: Way, provider: Provider, clients: Clients) -> None:
    whole = gzip.compress(b"".join([*way.first_token, *_end(way)]))
    cut = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    provider.answers = [Answer(cut, headers=["content-encoding: gzip"])]
    chunks, error = await _read(way, clients)
    assert (error, _text(chunks), chunks[-1]) == (None, "word ", p.Finish("stop"))


def _end(way: Way) -> list[bytes]:
    if way is CHAT:
        return [f.chat("stop"), f.DONE]
    if way is RESPONSES:
        return [f.response_state("completed", "completed")]
    return [f.block_end(0), *f.claude_end("end_turn")]


@lean_ways
@pytest.mark.parametrize("then", [Then.CUT, Then.END], ids=lambda then: then.value)
async def test_a_body_that_ends_inside_a_character(
    way: Way, then: Then, provider: Provider, clients: Clients
) -> None:
    half = json.dumps({"choices": [{"delta": {"content": "Gr"}}]}).encode()[:-4] + "ü".encode()[:1]
    provider.answers = [Answer([*way.first_token, b"data: " + half], then)]
    chunks, error = await _read(way, clients)
    assert error is not None and error.info.status_code == 502 and "send the message again" in str(error)
    assert _text(chunks) == "word "


async def test_bytes_that_are_no_text(provider: Provider, clients: Clients) -> None:
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "\xff\xfe"}}]}\n\n'
    for frame in (event, b"data: " + b"[" * 100_000 + b"\n\n"):
        provider.answers = [Answer([*CHAT.first_token, frame])]
        _, error = await _read(CHAT, clients)
        assert error is not None and error.info.message == Failure.UNUSABLE.message


async def test_a_pair_of_surrogates_in_two_events(provider: Provider, clients: Clients) -> None:
    halves = [b'data: {"choices": [{"index": 0, "delta": {"content": "\\ud83d"}}]}\n\n',
              b'data: {"choices": [{"index": 0, "delta": {"content": "\\ude00"}}]}\n\n']  # fmt: skip
    provider.answers = [Answer([*halves, f.chat("stop"), f.DONE])]
    chunks, error = await _read(CHAT, clients)
    assert error is None and _text(chunks).encode("utf-16", "surrogatepass").decode("utf-16") == "\U0001f600"


@pytest.mark.parametrize("together", [True, False], ids=["one event", "many events"])
async def test_arguments_of_ten_megabytes(together: bool, provider: Provider, clients: Clients) -> None:
    text = json.dumps({"text": "x" * (10 * MB)})
    cut = len(text) if together else 64 * 1024
    parts = [text[at : at + cut] for at in range(0, len(text), cut)]
    head, tail = f.chat_call(0, "", "c0", "save"), [f.chat("tool_calls"), f.DONE]
    provider.answers = [Answer([head, *(f.chat_call(0, part) for part in parts), *tail])]
    stream = CHAT.start(clients)
    chunks = [chunk async for chunk in stream]
    (call,) = stream.tool_calls
    assert call.input == {"text": "x" * (10 * MB)}
    assert len([chunk for chunk in chunks if isinstance(chunk, p.ToolInputDelta)]) == len(parts)


@lean_ways
@prompt
async def test_cancelling_while_the_provider_only_keeps_the_connection_alive(
    way: Way, provider: Provider, clients: Clients
) -> None:
    """No time-out of a client ends this: there is always another byte."""
    provider.answers = [Answer([*way.first_token, b": keep-alive\n\n"], Then.REPEAT)]
    reader = Reader(way.start(clients))
    await reader.spoke.wait()
    began = now()
    await reader.cancel()
    await closed_in_time(await provider.exchange(), began)


def _refused(seconds: str) -> Answer:
    error = {"type": "error", "error": {"message": "slow down", "type": "rate_limit_error", "code": None}}
    return Answer(status=429, body=error, headers=[f"retry-after: {seconds}"])


def _patient(clients: Clients) -> Clients:
    """Clients that repeat a refused request, as they do by default."""
    return Clients(clients.openai.with_options(max_retries=2), clients.anthropic.with_options(max_retries=2))


@lean_ways
async def test_a_refusal_for_now_is_the_librarys_to_repeat(
    way: Way, provider: Provider, clients: Clients
) -> None:
    answered = Answer([*way.first_token, *_end(way)])
    provider.answers = [_refused("0.01"), answered]
    chunks, error = await _read(way, _patient(clients))
    assert (error, _text(chunks), len(provider.exchanges)) == (None, "word ", 2)


@lean_ways
async def test_cancelling_while_the_library_waits_to_ask_again(
    way: Way, provider: Provider, clients: Clients
) -> None:
    provider.answers = [_refused("30")]
    reader = Reader(way.start(_patient(clients)))
    await provider.exchange()
    async with asyncio.timeout(2):
        await reader.cancel()
    assert len(provider.exchanges) == 1 and reader.chunks == []


@pytest.mark.parametrize(
    "body", [b"<html>Please log in</html>", b'{"choices": [{"message": {"content": "all at once"}}]}', b""]
)
async def test_a_body_that_is_no_event_stream(body: bytes, provider: Provider, clients: Clients) -> None:
    provider.answers = [Answer([body] if body else [])]
    chunks, error = await _read(CHAT, clients)
    assert chunks == [] and error is not None and error.info.message == Failure.INCOMPLETE.message


async def test_members_of_another_kind_than_expected(provider: Provider, clients: Clients) -> None:
    odd: list[Any] = [
        {"choices": "no"}, {"choices": [None]}, {"choices": [{"index": 0, "delta": 7}]}, [], 7, None, "x",
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": 3}]}}]},
    ]  # fmt: skip
    for value in odd:
        provider.answers = [Answer([*CHAT.first_token, data(value) if value != "x" else b'data: "x"\n\n'])]
        with pytest.raises(AgentError):
            [chunk async for chunk in openai_chat.stream(_ask(clients))]


def _ask(clients: Clients) -> Any:
    asked: Any = [{"role": "user", "content": "hi"}]
    return clients.openai.chat.completions.create(model="m", messages=asked, stream=True)
