"""The scripted model: a provider with a stream, a rate, failures and a crash, and no network.

The load generator, the demo without API keys and the tests all use it, so what it does with the clock matters:
tokens are due at absolute times, and however late the process is, the average rate holds.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Self

from agent_worker.agent.tools import Tool, ToolCall
from agent_worker.agent.turn import Turn
from agent_worker.output.message import Reasoning
from agent_worker.runtime.worker import Worker
from agent_worker.scripted.script import ModelScript, parse_script
from agent_worker.scripted.ticks import Ticks
from agent_worker.user_code.errors import AgentError
from selfhost_transport.turns.prompt import PromptMessage
from selfhost_transport.turns.values import Json, to_text

AGENT = "assistant"
REPLY_RATE = 40.0
"""Words per second of the answer to a text that is no script."""
STUBBORN_S = 5.0
"""How long a script with `ignore_abort` continues after it was stopped."""

TOOL = "lookup"
TOOL_S = 0.05
"""How long the scripted server tool takes."""

_QUOTED = 200


class ScriptedStream:
    """What a provider's client returns: an asynchronous iterator of tokens that can be closed.

    `partial`: what a lost attempt had said; the stream continues after it.

    `attempt` decides whether the script's failures happen. Raises AgentError at `fail_at`; at `crash_at` the
    process is killed, as by the kernel.
    """

    def __init__(self, script: ModelScript, attempt: int, context: str = "", partial: str = "") -> None:
        self._script = script
        self._rate = script.rate
        fails = any(at is not None for at in (script.fail_at, script.crash_at, script.hang_at))
        self._failing = fails and (attempt == 1 or script.always)
        self._tokens = _tokens(script, context)
        said = _skip(self._tokens, partial)
        self._reasoning = 0 if said else script.reasoning
        # How many tokens of reasoning and answer were handed out.
        self._count = self._first = said
        self._loop = asyncio.get_running_loop()
        self._ticks = Ticks.of(self._loop)
        self._began = self._loop.time()
        self.closed = False

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[str | Reasoning]:
        """The next token, at its time. Not a coroutine: a token of its own frame costs as much as writing it."""
        if self.closed:
            raise StopAsyncIteration
        if self._failing and self._count >= self._reasoning:
            return self._next_or_failure()
        return self._next()

    def _next(self) -> asyncio.Future[str | Reasoning]:
        count = self._count
        token = self._reasoning_token(count) if count < self._reasoning else next(self._tokens, None)
        if token is None:
            raise StopAsyncIteration
        self._count = count + 1
        if self._rate:
            due = self._began + (count - self._first) / self._rate
            if due > self._loop.time():
                return self._ticks.at(due, token)
        ready: asyncio.Future[str | Reasoning] = self._loop.create_future()
        ready.set_result(token)
        return ready

    async def _next_or_failure(self) -> str | Reasoning:
        await self._misbehave(self._count - self._reasoning)
        return await self._next()

    async def aclose(self) -> None:
        """Hang up. A provider would notice that its connection was closed."""
        self.closed = True

    async def _misbehave(self, at: int) -> None:
        script = self._script
        if at == script.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if at == script.fail_at:
            # Tried again: the next attempt goes through, unless it always fails.
            again = None if script.always else True
            raise AgentError(f"the scripted provider failed at token {at}", status_code=502, again=again)
        if at == script.hang_at:
            await self._loop.create_future()

    @staticmethod
    def _reasoning_token(number: int) -> Reasoning:
        return Reasoning(f"r{number} ")


async def scripted(turn: Turn) -> None:
    """The agent: follow the script in the user's text, or quote the text in a short answer."""
    text = await turn.text()
    script = parse_script(text) or ModelScript(say=_reply(text), rate=REPLY_RATE)
    try:
        async with turn.message():
            if script.tool or script.approve:
                script = await _use_tool(turn, script)
            context = _as_json(await turn.messages()) if script.echo_context else ""
            await turn.pipe(ScriptedStream(script, turn.attempt, context, turn.partial))
    except asyncio.CancelledError:
        if not script.ignore_abort:
            raise
        await asyncio.sleep(STUBBORN_S)
        await turn.pipe(["this must not be seen"])


async def _use_tool(turn: Turn, script: ModelScript) -> ModelScript:
    """Call the script's tool, or continue once people have answered. Returns the rest of the script."""
    answers = await turn.answers()
    if not answers:
        thoughts = ScriptedStream(
            replace(script, say=None, tokens=0, fail_at=None, crash_at=None, hang_at=None), 1
        )
        await turn.pipe(thoughts)
        call = ToolCall(TOOL, {"query": "the scripted question"}, needs_approval=script.approve)
        if script.approve or script.tool == "client":
            await turn.suspend([call])
        await turn.tool(call, _lookup(script))
    elif (answer := answers[-1]).approved and script.tool == "client":
        await turn.suspend([replace(answer.call, needs_approval=False)])
    elif answer.approved:
        await turn.tool(answer.call, _lookup(script))
    return replace(script, reasoning=0)


def _lookup(script: ModelScript) -> Tool:
    async def lookup(query: str) -> Json:
        """What the scripted tool does: it takes a moment, and knows an answer."""
        try:
            await asyncio.sleep(STUBBORN_S if script.ignore_abort else TOOL_S)
        except asyncio.CancelledError:
            if not script.ignore_abort:
                raise
            await asyncio.sleep(STUBBORN_S)
        return {"answer": f"what is known of {query}"}

    return lookup


def scripted_worker() -> Worker:
    """The worker that is run when none is named."""
    worker = Worker()
    worker.free_models = True
    worker.agent(AGENT)(scripted)
    return worker


def _tokens(script: ModelScript, context: str) -> Iterator[str]:
    said = re.findall(r"\S+\s*", script.say or "")
    echoed = [context[at : at + 64] for at in range(0, len(context), 64)]
    return chain(said, echoed, (f"{number} " for number in range(script.tokens)))


def _skip(tokens: Iterator[str], partial: str) -> int:
    """Leave out the tokens that were said before; their number."""
    count, left = 0, len(partial)
    while left > 0 and (token := next(tokens, None)) is not None:
        count, left = count + 1, left - len(token)
    return count


def _as_json(messages: Sequence[PromptMessage]) -> str:
    """The conversation as the agent was given it; `interrupted` only where an answer is not whole."""
    listed: list[Json] = [
        {**said.message.to_json(), **({"interrupted": True} if said.interrupted else {})} for said in messages
    ]
    return to_text(listed)


def _reply(text: str) -> str:
    quoted = text.strip()
    if len(quoted) > _QUOTED:
        quoted = quoted[:_QUOTED] + "…"
    return f"You wrote: “{quoted}”. This answer comes from the scripted model; begin with `script:` to tell it what to do."
