"""Provider: what reading a token from a provider's stream costs the worker, beside the provider's own library.

`as fast as read`: many events arrive together. `at a model's pace`: each token is a read of its own, and the HTTP client
below the library costs more than the library and the adapter together; the aiohttp client that both libraries offer
(`DefaultAioHttpClient`) is measured beside their default.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import anthropic
import openai

from agent_worker.adapters import ProviderStream, anthropic_messages, openai_chat, openai_responses
from benchmarks.figures import Figure
from benchmarks.provider_streams import provider_streams

_REPEATS = 3
_PACE = 50.0
# A token of this many us fills a repeat; only used to choose how many tokens to read.
_GUESS_US = 50.0

_CALLS_AT_ONCE = (1, 200)
_CALLS = 200
# What an answer of one token is for its reader: its start, the token, its end, the end of the step and of the answer.
_CHUNKS_OF_ONE_TOKEN = 5

Start = Callable[[str, bool], ProviderStream[Any]]


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return asyncio.run(_run(seconds))


async def _run(seconds: float) -> list[Figure]:
    found: list[Figure] = []
    async with (
        provider_streams() as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as ours,
        anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as theirs,
        openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=openai.DefaultAioHttpClient()
        ) as aio,
    ):
        starts: dict[str, Start] = {
            "OpenAI chat": _chat(ours),
            "OpenAI responses": _responses(ours),
            "Anthropic": _claude(theirs),
            "OpenAI chat, aiohttp": _chat(aio),
        }
        for name, start in starts.items():
            burst = max(500, int(seconds / _REPEATS / 4 * 1e6 / _GUESS_US))
            found += await _pair(f"{name}, as fast as read", start, streams=1, tokens=burst, pace=0.0)
            paced = max(20, int(_PACE * seconds / _REPEATS))
            found += await _pair(f"{name}, at a model's pace", start, streams=40, tokens=paced, pace=_PACE)
            found += [await _call(name, start, at_once) for at_once in _CALLS_AT_ONCE]
    return found


async def _call(name: str, start: Start, at_once: int) -> Figure:
    """A request, its answer of one token, and the connection that it takes; so many of them at once."""
    found = []
    for _ in range(_REPEATS):
        # Of one token each: tokens are calls.
        rounds = [await _us_per_token(start, False, at_once, 1, 0.0) for _ in range(_CALLS // at_once)]
        found.append(statistics.mean(rounds) * _CHUNKS_OF_ONE_TOKEN)
    return Figure("provider", f"{name}: a call, {at_once} at once", statistics.median(found), "us")


async def _pair(name: str, start: Start, *, streams: int, tokens: int, pace: float) -> list[Figure]:
    """Adapter and library in turns; the median of each, and of the ratio of each pair."""
    lean, library = [], []
    for _ in range(_REPEATS):
        lean.append(await _us_per_token(start, False, streams, tokens, pace))
        library.append(await _us_per_token(start, True, streams, tokens, pace))
    ratios = [one / other for one, other in zip(library, lean, strict=True)]
    return [
        Figure("provider", f"{name}: adapter", statistics.median(lean), "us"),
        Figure("provider", f"{name}: through the library's models", statistics.median(library), "us"),
        Figure("provider", f"{name}: library costs", statistics.median(ratios), "times the adapter"),
    ]


async def _us_per_token(start: Start, library: bool, streams: int, tokens: int, pace: float) -> float:
    began = time.process_time()
    counts = await asyncio.gather(*(_read(start(f"{tokens} {pace}", library)) for _ in range(streams)))
    return (time.process_time() - began) * 1e6 / sum(counts)


async def _read(stream: ProviderStream[Any]) -> int:
    count = 0
    async with stream as chunks:
        async for _ in chunks:
            count += 1
    return count


def _chat(client: openai.AsyncOpenAI) -> Start:
    return lambda asked, library: openai_chat.stream(
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": asked}], stream=True),
        library=library,
    )


def _responses(client: openai.AsyncOpenAI) -> Start:
    return lambda asked, library: openai_responses.stream(
        client.responses.create(model="m", input=asked, stream=True), library=library
    )


def _claude(client: anthropic.AsyncAnthropic) -> Start:
    return lambda asked, library: anthropic_messages.stream(
        client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": asked}], stream=True
        ),
        library=library,
    )
