"""Stops over the plain HTTP front ends, at random moments before and after a resume: final, and heard by the provider."""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from benchmarks.model_server import hang_ups, provider
from benchmarks.turn_agent import PROVIDER
from benchmarks.turn_stops import percentile
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX
from tests.e2e.front_ends import AguiClient, Heard, ResponsesClient, UiPage
from tests.processes import Proc, Stack, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = os.environ.get(f"{ENV_PREFIX}LONG") == "1"
STOPS = 100 if LONG else 12
# The bound of the full count; a few stops beside other tests say less.
CLOSED_S = 0.05 if LONG else 1.0
CONFIG = """
[[keys]]
name = "app.key"
secret = "secret"

[[namespaces]]
id = "*"
agent = "assistant"
"""
SAYS = ("text", "reasoning", "arguments")


@dataclass(slots=True)
class Site:
    """Two gateways, a worker whose model is a provider over HTTP, and that provider."""

    gateways: list[Proc]
    model: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    async with provider() as model, Stack.opened(redis_server.url, folder) as stack:
        gateways = [await stack.gateway(config=CONFIG) for _ in range(2)]
        await stack.worker("benchmarks.turn_agent:worker", config=CONFIG, env={PROVIDER: model})
        yield Site(gateways, model)


@pytest.mark.parametrize("kind", [UiPage, AguiClient, ResponsesClient])
async def test_a_stop_is_final_whenever_it_comes(site: Site, kind: type[UiPage]) -> None:
    waits: list[float] = []
    named: dict[str, float] = {}
    limit = asyncio.Semaphore(4)
    client, other = _client(site, 0), _client(site, 1)

    async def stop(number: int) -> None:
        page, says = kind(f"{kind.__name__}-{uuid.uuid4().hex[:10]}"), SAYS[number % 3]
        async with limit, asyncio.timeout(30):
            own, second = Heard(), Heard()
            reading = asyncio.create_task(own.read(client, page.ask(f"{page.session} 50 {says}")))
            await own.until_text()
            first = own
            following = asyncio.create_task(second.read(other, page.resume(first)))
            await second.until_text()
            await asyncio.sleep(random.uniform(0, 0.3))  # some moment of the answer
            if is_reloaded := number // 3 % 2:
                # A reload: the connection goes away, and another one continues on the other gateway.
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                own = Heard()
                reading = asyncio.create_task(own.read(other, page.resume(first)))
                await asyncio.sleep(random.uniform(0, 0.1))  # also before its first event
            called = time.monotonic()
            stopped = await page.stop((client, other)[is_reloaded], first)
            waits.append(time.monotonic() - called)
            named[page.session] = called
            stored = await _stored(client, page.session, says)
            await asyncio.gather(reading, following)
            # After the stop there is nothing to resume.
            assert own.status in (200, 204)
            assert stopped.position is None or max(own.newest, second.newest) < stopped.position
            assert stopped.text in (None, second.text)
            assert all(map(_is_closed, (own, second)))
            assert stored in (None, second.text) and second.was_cancelled
            # After the reload the stop may have come first: then there was nothing to resume.
            assert own.text == second.text or (is_reloaded and not own.text)
            assert is_reloaded or own.was_cancelled
            assert await _stored(client, page.session, says) == stored

    # One client for all: to make one takes tens of milliseconds, in which the others' stops would wait.
    async with client, other:
        await asyncio.gather(*map(stop, range(STOPS)))

    async def all_closed() -> bool:
        return named.keys() <= (await hang_ups(site.model)).keys()

    await wait_until(all_closed, 10.0, "the provider's responses are closed")
    closed = await hang_ups(site.model)
    late = [closed[session] - called for session, called in named.items()]
    for what, seconds in (("answered", waits), ("provider's response closed", late)):
        half, most = (percentile(seconds, per_cent) * 1e3 for per_cent in (50, 99))
        print(f"{kind.__name__}, {len(late)} stops: {what} p50 {half:.1f} ms, p99 {most:.1f} ms")
    assert percentile(late, 99) <= CLOSED_S


def _client(site: Site, gateway: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=site.gateways[gateway].url,
        auth=("app.key", "secret"),
        params={"clientId": "user-1"},
        timeout=30.0,
    )


def _is_closed(heard: Heard) -> bool:
    """Whether an AG-UI run ended everything that it had begun before its last event."""
    types = [str(event["type"]) for event in heard.events]
    if not types or types[-1] != "RUN_FINISHED":
        return True
    begun = sum(name.endswith(("_START", "_STARTED")) for name in types)
    return begun == sum(name.endswith(("_END", "_FINISHED")) for name in types)


async def _stored(client: httpx.AsyncClient, session: str, says: str) -> str | None:
    """What the model said, as the session has it; None for a call's arguments, which are kept once they are complete."""
    messages = (await client.get(f"/v1/sessions/{session}/messages")).json()["messages"]
    said = [
        part for one in messages if one["message"]["role"] == "assistant" for part in one["message"]["parts"]
    ]
    return None if says == "arguments" else "".join(part.get("text", "") for part in said)
