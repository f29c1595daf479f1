"""Every way in which an adapter is used, for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
from pydantic_ai import Agent, ModelRequest
from pydantic_ai.direct import model_request_stream
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from agent_worker.adapters import (
    ProviderStream,
    anthropic_messages,
    openai_chat,
    openai_responses,
    pydantic_ai_events,
)
from tests.adapters import frames as f
from tests.adapters.provider import Frame


@dataclass(frozen=True, slots=True)
class Clients:
    """The real clients."""

    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic


@dataclass(frozen=True, slots=True)
class Way:
    """One way to call a model: the call, and what the provider sends until its first token."""

    name: str
    start: Callable[[Clients], ProviderStream[Any]]
    first_token: list[Frame]


def _chat(clients: Clients) -> ProviderStream[Any]:
    call = clients.openai.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    return openai_chat.stream(call)


def _responses(clients: Clients) -> ProviderStream[Any]:
    return openai_responses.stream(clients.openai.responses.create(model="m", input="hi", stream=True))


def _claude(clients: Clients) -> ProviderStream[Any]:
    call = clients.anthropic.messages.create(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    return anthropic_messages.stream(call)


def _claude_helper(clients: Clients) -> ProviderStream[Any]:
    call = clients.anthropic.messages.stream(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    )
    return anthropic_messages.stream(call)


def chat_model(client: openai.AsyncOpenAI) -> OpenAIChatModel:
    """pydantic-ai's model on OpenAI's client."""
    return OpenAIChatModel("m", provider=OpenAIProvider(openai_client=client))


def _agent(clients: Clients) -> ProviderStream[Any]:
    return pydantic_ai_events.stream(Agent(chat_model(clients.openai)).run_stream_events("hi"))


def _direct(clients: Clients) -> ProviderStream[Any]:
    asked = [ModelRequest.user_text_prompt("hi")]
    return pydantic_ai_events.stream(model_request_stream(chat_model(clients.openai), asked))


_CHAT = [f.chat(role="assistant", content=""), f.chat(content="word ")]
_CLAUDE = [f.claude_start(), f.block(0, type="text", text=""), f.delta(0, "text_delta", text="word ")]

WAYS = [
    Way("chat", _chat, _CHAT),
    Way("responses", _responses, [f.response_state("created", "in_progress"), f.response_text("word ")]),
    Way("anthropic", _claude, _CLAUDE),
    Way("anthropic-helper", _claude_helper, _CLAUDE),
    Way("pydantic-ai-agent", _agent, _CHAT),
    Way("pydantic-ai-model", _direct, _CHAT),
]
