"""Agents for tests, run by `selfhost-transport worker tests.e2e.crew:worker`.

`agent-1` to `agent-5` understand the scripted model's language, and some words of their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx

from agent_worker import ToolCall, Worker
from agent_worker.agent.turn import Turn
from agent_worker.output.message import OutputChunk
from agent_worker.scripted.model import scripted
from agent_worker.user_code.errors import AgentError
from selfhost_transport import Seed
from selfhost_transport.turns.chunks import Start

AGENTS = tuple(f"agent-{number}" for number in range(1, 6))
# Every code point of several scripts, split between tokens at every place where a string can be split.
UNSAFE = "a\u0301 e\u0308 👩‍👩‍👧‍👦 🇩🇪 漢字かな 한국어 \0 end\u200d\u200b ünï ✊🏿"

worker = Worker()


async def raise_midway(turn: Turn) -> None:
    """A handler that throws something private between stream and end."""
    await turn.pipe(["some ", "text "])
    raise RuntimeError("the password is hunter2")


async def return_early(turn: Turn) -> None:
    """A handler that does nothing."""


async def coded_error(turn: Turn) -> None:
    """An agent that says in its own words what went wrong."""
    await turn.pipe(["some "])
    raise AgentError("the model is overloaded, try tomorrow", code=50042)


async def two_pipes(turn: Turn) -> None:
    """A planner's line, then the answer."""
    await turn.pipe(["first I ", "plan"])
    await turn.pipe(["then I ", "answer"])


async def unsafe_text(turn: Turn) -> None:
    """One character per token."""
    await turn.pipe(list(UNSAFE))


async def sources(turn: Turn) -> None:
    """`pipe` takes any iterable; says what each returned."""

    def plain() -> Iterator[str]:
        yield "generator "

    async def slow() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        yield "async "

    async def broken() -> AsyncIterator[str]:
        yield "partial "
        raise ValueError("the provider hung up")

    results = [await turn.pipe(source) for source in (["list "], plain(), slow(), broken())]
    said = " ".join(f"{result.reason}:{type(result.error).__name__}" for result in results)
    await turn.pipe([said])


async def provider(turn: Turn) -> None:
    """Streams from an HTTP server whose address is the second word."""
    url = (await turn.text()).split()[1]

    async def stream() -> AsyncIterator[OutputChunk]:
        async with httpx.AsyncClient(timeout=None) as client, client.stream("GET", url) as response:
            async for chunk in response.aiter_text():
                yield chunk

    await turn.pipe(stream())


async def hydrated(turn: Turn) -> None:
    """The conversation behind a seed, whose file is the second word, and the whole one, as JSON."""
    raw = await asyncio.to_thread(Path((await turn.text()).split()[1]).read_text)
    stored = json.loads(raw)
    seed = Seed.from_json(stored["messages"], stored["resume_point"])
    answers = {
        "seeded": [said.message.to_json() for said in await turn.messages(seed=seed)],
        "whole": [said.message.to_json() for said in await turn.messages()],
    }
    await turn.pipe([json.dumps(answers)])


async def own_ids(turn: Turn) -> None:
    """An answer whose message has an id of the application's."""
    (question,) = await turn.messages()
    await turn.pipe([Start(message_id=f"answer-to-{question.message.id}"), "Noted."])


async def causes(turn: Turn) -> None:
    """Streams forever, and adds to the file that is the second word why it was stopped; the next attempt ends."""
    file = Path((await turn.text()).split()[1])
    if turn.attempt > 1 or await asyncio.to_thread(file.exists):
        await turn.pipe(["again"])
        return

    async def endless() -> AsyncIterator[str]:
        while True:
            yield "on "
            await asyncio.sleep(0.01)

    try:
        await turn.pipe(endless())
    finally:
        await asyncio.shield(asyncio.to_thread(file.write_text, str(turn.abort_cause)))


async def stubborn_tool(turn: Turn) -> None:
    """Calls a tool that writes down that it is aborted, into the file that is the second word, and goes on regardless."""
    file = Path((await turn.text()).split()[1])

    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            file.write_text("aborted")
            await asyncio.sleep(1)
        file.write_text("returned")
        return "this must not be seen"

    await turn.tool(ToolCall("work", {}, "call-1"), work)
    await turn.pipe(["nor this"])


async def until_file(turn: Turn) -> None:
    """Ends when the file that is the second word exists."""
    file = Path((await turn.text()).split()[1])
    await turn.pipe(["waited"])
    while not await asyncio.to_thread(file.exists):
        await asyncio.sleep(0.01)


_WORDS: dict[str, Callable[[Turn], Awaitable[None]]] = {
    "raise": raise_midway,
    "return": return_early,
    "coded": coded_error,
    "two-pipes": two_pipes,
    "unsafe": unsafe_text,
    "sources": sources,
    "provider": provider,
    "hydrated": hydrated,
    "own-ids": own_ids,
    "causes": causes,
    "until-file": until_file,
    "stubborn-tool": stubborn_tool,
}


async def crew(turn: Turn) -> None:
    """Whatever the first word asks for, else the scripted model."""
    words = (await turn.text()).split(maxsplit=1)
    handler = _WORDS.get(words[0] if words else "", scripted)
    await handler(turn)


for _name in AGENTS:
    worker.agent(_name)(crew)
