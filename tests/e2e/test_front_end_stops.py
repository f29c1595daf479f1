"""Stops over the plain HTTP front ends, at random moments before and after a resume: final, and heard by the provider."""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio

from benchmarks.model_server import hang_ups, provider
from benchmarks.turn_agent import PROVIDER
from benchmarks.turn_stops import percentile
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.wire.serial import Position, parse_position
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
CONTENT = ("delta", "inputTextDelta")


@dataclass(slots=True)
class Site:
    """Two gateways, a worker whose model is a provider over HTTP, and that provider."""

    gateways: list[Proc]
    model: str


@dataclass(slots=True)
class Heard:
    """What one reader of a turn was given."""

    text: str = ""
    # Of the newest event with text that came live.
    newest: Position = Position.ZERO
    events: list[dict[str, Any]] = field(default_factory=list)

    def take(self, frame: str) -> None:
        """One server-sent event."""
        lines = dict(line.partition(": ")[::2] for line in frame.split("\n") if line and line[0] != ":")
        if not lines.get("data", "").startswith("{"):
            return
        event = orjson.loads(lines["data"])
        self.events.append(event)
        if event["type"] == "MESSAGES_SNAPSHOT":
            self.text = "".join(m.get("content") or "" for m in event["messages"] if m["role"] == "assistant")
        elif event["type"] in ("text-delta", "TEXT_MESSAGE_CONTENT"):
            self.text += event["delta"]
            if position := lines.get("id", "").partition("/")[0]:
                self.newest = max(self.newest, parse_position(position)[0])

    @property
    def was_cancelled(self) -> bool:
        """Whether the stream ended by saying so."""
        last = self.events[-1]
        reported = (last.get("messageMetadata") or {}, last.get("metadata") or {}, last.get("outcome") or {})
        return any("cancelled" in said.values() for said in reported)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    stack = Stack(redis_server.url, f"t{uuid.uuid4().hex[:12]}", tmp_path_factory.mktemp("site"))
    async with provider() as model:
        try:
            gateways = [await stack.gateway(config=CONFIG) for _ in range(2)]
            await stack.worker("benchmarks.turn_agent:worker", config=CONFIG, env={PROVIDER: model})
            yield Site(gateways, model)
        finally:
            await stack.close()


class UiPage:
    """A `useChat` page."""

    def __init__(self, session: str) -> None:
        self.session = session

    def ask(self, text: str) -> tuple[str, str, dict[str, Any]]:
        """The request of a message."""
        message = {"id": self.session, "role": "user", "parts": [{"type": "text", "text": text}]}
        return "POST", f"/v1/ui/{self.session}", {"messages": [message]}

    def resume(self) -> tuple[str, str, dict[str, Any] | None]:
        """The request after a reload, and of another tab."""
        return "GET", f"/v1/ui/{self.session}/stream", None

    async def stop(self, client: httpx.AsyncClient) -> dict[str, Any]:
        """The stop's answer."""
        return dict((await client.post(f"/v1/ui/{self.session}/stop")).json())


class AguiClient(UiPage):
    """An AG-UI client."""

    def ask(self, text: str) -> tuple[str, str, dict[str, Any]]:
        """The request of a run."""
        return "POST", "/v1/agui", self._input({"id": self.session, "role": "user", "content": text})

    def resume(self) -> tuple[str, str, dict[str, Any] | None]:
        """Connect."""
        return "POST", "/v1/agui/connect", self._input()

    async def stop(self, client: httpx.AsyncClient) -> dict[str, Any]:
        """The stop's answer."""
        return dict((await client.post("/v1/agui/stop", json={"threadId": self.session})).json())

    def _input(self, *messages: dict[str, Any]) -> dict[str, Any]:
        run = {"threadId": self.session, "runId": str(uuid.uuid4()), "protocolVersion": "1.0"}
        return {**run, "messages": list(messages)}


async def _read(client: httpx.AsyncClient, request: tuple[str, str, Any], heard: Heard) -> None:
    method, path, body = request
    async with client.stream(method, path, json=body) as response:
        # After the stop there is nothing to resume.
        assert response.status_code in (200, 204), await response.aread()
        rest = ""
        async for text in response.aiter_text():
            *frames, rest = (rest + text).split("\n\n")
            for frame in frames:
                heard.take(frame)


async def _until_text(heard: Heard) -> None:
    await wait_until(lambda: heard.text, 20.0, "text of the model")


@pytest.mark.parametrize("kind", [UiPage, AguiClient])
async def test_a_stop_is_final_whenever_it_comes(site: Site, kind: type[UiPage]) -> None:
    waits: list[float] = []
    named: dict[str, float] = {}
    limit = asyncio.Semaphore(4)

    async def stop(number: int) -> None:
        page = kind(f"{kind.__name__}-{uuid.uuid4().hex[:10]}")
        async with limit, _client(site, 0) as client, _client(site, 1) as other, asyncio.timeout(30):
            own, second = Heard(), Heard()
            reading = asyncio.create_task(_read(client, page.ask(f"{page.session} 50"), own))
            await _until_text(own)
            following = asyncio.create_task(_read(other, page.resume(), second))
            await _until_text(second)
            await asyncio.sleep(random.uniform(0, 0.3))  # some moment of the answer
            if number % 2:
                # A reload: the connection goes away, and another one continues on the other gateway.
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                own = Heard()
                reading = asyncio.create_task(_read(other, page.resume(), own))
                await asyncio.sleep(random.uniform(0, 0.1))  # also before its first event
            called = time.monotonic()
            answer = await page.stop((client, other)[number % 2])
            waits.append(time.monotonic() - called)
            named[page.session] = called
            stored = await _stored(client, page.session)
            await asyncio.gather(reading, following)
            final = parse_position(answer["position"])[0]
            assert max(own.newest, second.newest) < final
            assert second.text == stored and second.was_cancelled
            # After the reload the stop may have come first: then there was nothing to resume.
            assert own.text == stored or (number % 2 and not own.text)
            assert number % 2 or own.was_cancelled
            assert await _stored(client, page.session) == stored

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


async def _stored(client: httpx.AsyncClient, session: str) -> str:
    messages = (await client.get(f"/v1/sessions/{session}/messages")).json()["messages"]
    said = [
        part for one in messages if one["message"]["role"] == "assistant" for part in one["message"]["parts"]
    ]
    return "".join(part.get("text", "") for part in said)
