"""The fake provider as a process, talked to by the providers' own libraries."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from agent_worker.fake_provider.behaviour import Behaviour
from agent_worker.fake_provider.server import FakeProvider, listen, server_of
from tests.processes import Proc, Stack, wait_until
from tests.promptness import assert_quick, prompt

WORDS = "".join(f"{number} " for number in range(12))
HELLO: Any = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Served:
    """A provider in this process, on a port of its own."""

    url: str


@asynccontextmanager
async def serving(
    *faults: str, first_token: str = "0", rate: str = "0", key: str = ""
) -> AsyncIterator[Served]:
    listening = listen("127.0.0.1", 0)
    server = server_of(FakeProvider(Behaviour.parse(first_token, rate, "12", faults, 0), key))
    # The handlers of signals are the program's, not the test's.
    running = asyncio.create_task(server._serve([listening]))
    try:
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}")
    finally:
        server.should_exit = True
        await running
        listening.close()


def client_of_openai(proc: Served | Proc, key: str = "k") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{proc.url}/v1", api_key=key, max_retries=0, timeout=20)


def client_of_anthropic(proc: Served) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=proc.url, api_key="k", max_retries=0, timeout=20)


async def stats(proc: Served) -> dict[str, int]:
    async with httpx.AsyncClient() as http:
        found: dict[str, int] = (await http.get(f"{proc.url}/stats")).json()
        return found


async def chat(client: openai.AsyncOpenAI, **more: Any) -> tuple[str, Any, Any]:
    text, reason, usage = "", None, None
    async for chunk in await client.chat.completions.create(model="m", messages=HELLO, stream=True, **more):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return text, reason, usage


async def test_chat_completions() -> None:
    async with serving() as proc, client_of_openai(proc) as client:
        assert await chat(client) == (WORDS, "stop", None)
        text, reason, usage = await chat(client, max_tokens=3, stream_options={"include_usage": True})
        assert (text, reason, usage.completion_tokens) == ("0 1 2 ", "length", 3)
        assert usage.prompt_tokens > 1
        whole = await client.chat.completions.create(model="m", messages=HELLO)
        assert whole.choices[0].message.content == WORDS
        assert whole.usage is not None and whole.usage.completion_tokens == 12
        assert [model.id async for model in client.models.list()] == ["fake"]
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="m", messages=[])


async def test_responses() -> None:
    async with serving() as proc, client_of_openai(proc) as client:
        async with client.responses.stream(model="m", input="hello") as stream:
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        assert "".join(deltas) == final.output_text == WORDS
        assert final.usage is not None and final.usage.output_tokens == 12
        cut = await client.responses.create(model="m", input="hello", max_output_tokens=2)
        assert (cut.status, cut.output_text) == ("incomplete", "0 1 ")


async def test_messages() -> None:
    async with serving() as proc, client_of_anthropic(proc) as client:
        async with client.messages.stream(model="m", max_tokens=500, messages=HELLO) as stream:
            text = "".join([part async for part in stream.text_stream])
            final = await stream.get_final_message()
        assert (text, final.stop_reason, final.usage.output_tokens) == (WORDS, "end_turn", 12)
        whole = await client.messages.create(model="m", max_tokens=2, messages=HELLO)
        assert whole.stop_reason == "max_tokens"


@prompt
async def test_it_keeps_the_time_that_it_was_given() -> None:
    loop = asyncio.get_running_loop()
    async with serving(first_token="0.3", rate="20") as proc, client_of_openai(proc) as client:
        began = loop.time()
        arrived = [
            loop.time() - began
            async for chunk in await client.chat.completions.create(model="m", messages=HELLO, stream=True)
            if chunk.choices[0].delta.content
        ]
    assert len(arrived) == 12
    assert arrived[0] >= 0.3
    assert arrived[-1] >= 0.3 + 11 / 20
    assert_quick(arrived[-1], 2.5)


CUT = (openai.APIConnectionError, anthropic.APIConnectionError, httpx.TransportError, httpx2.TransportError)


@pytest.mark.parametrize(
    ("fault", "of_openai", "of_anthropic"),
    [
        ("rate_limit", openai.RateLimitError, anthropic.RateLimitError),
        ("overloaded", openai.InternalServerError, anthropic.InternalServerError),
        ("failed", openai.InternalServerError, anthropic.InternalServerError),
        ("stream_error", openai.APIError, anthropic.APIStatusError),
        ("dropped", CUT, CUT),
    ],
)
async def test_it_fails_as_it_is_asked_to(fault: str, of_openai: Any, of_anthropic: Any) -> None:
    async with serving(f"{fault}=100%") as proc:
        async with client_of_openai(proc) as client:
            with pytest.raises(of_openai):
                await chat(client)
        async with client_of_anthropic(proc) as client:
            with pytest.raises(of_anthropic):
                async with client.messages.stream(model="m", max_tokens=500, messages=HELLO) as stream:
                    await stream.until_done()
        counted = await stats(proc)
    assert counted[f"fault_{fault}"] == counted["requests"] == 2


async def test_a_silent_answer_ends_when_its_reader_hangs_up() -> None:
    async with serving("silent=100") as proc, client_of_openai(proc) as client:
        answer = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        await anext(aiter(answer))
        assert not (await stats(proc)).get("hung_up")
        await answer.close()

        async def hung_up() -> bool:
            return (await stats(proc)).get("hung_up") == 1

        await wait_until(hung_up)


async def test_a_key_may_be_needed() -> None:
    async with serving(key="sk-right") as proc:
        async with client_of_openai(proc, "sk-wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await chat(client)
        async with client_of_openai(proc, "sk-right") as client:
            assert (await chat(client))[0] == WORDS


async def test_the_command_serves_and_explains_wrong_options(stack: Stack) -> None:
    proc = await stack.started(
        "fake-provider", "--port", "0", "--first-token", "0", "--rate", "0", "--tokens", "12"
    )
    async with client_of_openai(proc) as client:
        assert (await chat(client))[0] == WORDS
    wrong = await stack.run(sys.executable, "-m", "selfhost_transport.cli", "fake-provider", "--rate", "fast")
    assert await wrong.wait() == 1
    assert "is no distribution" in wrong.log and "Traceback" not in wrong.log
