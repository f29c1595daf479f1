"""The provider, and the real client libraries pointed at it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anthropic
import openai
import pytest

from tests.adapters.calls import Clients
from tests.adapters.provider import Provider


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A provider that answers what the test scripts."""
    running = Provider()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def openai_client(provider: Provider) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client; it does not repeat requests."""
    async with openai.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="sk-test", max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic_client(provider: Provider) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's client; it does not repeat requests."""
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="sk-test", max_retries=0) as client:
        yield client


@pytest.fixture
def clients(openai_client: openai.AsyncOpenAI, anthropic_client: anthropic.AsyncAnthropic) -> Clients:
    """Both."""
    return Clients(openai_client, anthropic_client)
