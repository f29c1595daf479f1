"""Workers whose agent asks a provider, wherever OPENAI_BASE_URL and ANTHROPIC_BASE_URL say that it is.

`worker benchmarks.provider_agent:chat`, `:chat_aiohttp`, `:claude`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import anthropic
import openai

from agent_worker import Turn, Worker
from agent_worker.adapters import ProviderStream, anthropic_messages, openai_chat
from selfhost_transport.turns.prompt import PromptMessage

chat, chat_aiohttp, claude = Worker(), Worker(), Worker()


@cache
def _openai(aio: bool) -> openai.AsyncOpenAI:
    """One for all turns, made in the worker's event loop."""
    http = openai.DefaultAioHttpClient() if aio else None
    return openai.AsyncOpenAI(max_retries=0, http_client=http)


@cache
def _anthropic() -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(max_retries=0)


def _ask_openai(prompt: list[PromptMessage], aio: bool) -> ProviderStream[Any]:
    messages = openai_chat.messages(prompt)
    call = _openai(aio).chat.completions.create(model="m", messages=messages, stream=True)
    return openai_chat.stream(call)


def _ask_anthropic(prompt: list[PromptMessage]) -> ProviderStream[Any]:
    messages = anthropic_messages.messages(prompt)
    call = _anthropic().messages.create(model="m", max_tokens=100_000, messages=messages, stream=True)
    return anthropic_messages.stream(call)


def _register(worker: Worker, ask: Callable[[list[PromptMessage]], ProviderStream[Any]]) -> None:
    @worker.agent("assistant")
    async def assistant(turn: Turn) -> None:
        """Pass the model's answer on."""
        await turn.pipe(ask(await turn.conversation.messages()))


_register(chat, lambda prompt: _ask_openai(prompt, False))
_register(chat_aiohttp, lambda prompt: _ask_openai(prompt, True))
_register(claude, _ask_anthropic)
