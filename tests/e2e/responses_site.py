"""A gateway and a worker for OpenAI's clients, and how their events are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
from openai import AsyncOpenAI

from tests.front_ends import key, namespace
from tests.processes import Proc, Stack

KEY = "app.key:secret"


CONFIG = "\n".join(
    [
        key("app.key"),
        key("app.reader", "subscribe", "history"),
        key("other.key", channels="elsewhere:*"),
        namespace("*", "assistant"),
        namespace("three", "three-calls"),
        namespace("mirror", "mirror"),
        namespace("everything", "everything"),
        namespace("pay", "payer"),
        namespace("queue", "assistant", policy="queue"),
    ]
)


@dataclass
class Site:
    stack: Stack
    gateways: list[Proc]

    def client(self, gateway: int = 0, key: str = KEY, **options: Any) -> Any:
        return AsyncOpenAI(base_url=f"{self.gateways[gateway].url}/v1", api_key=key, **options)

    def http(self, gateway: int = 0, key: str = KEY) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.gateways[gateway].url, headers=headers, timeout=20.0)


@asynccontextmanager
async def open_site(
    redis_url: str,
    folder: Path,
    config: str = CONFIG,
    workers: Sequence[str] = ("tests.e2e.participants:worker",),
) -> AsyncIterator[Site]:
    """Two gateways, and workers: each of this MODULE:OBJECT, '' for the scripted model."""
    async with Stack.opened(redis_url, folder) as stack:
        gateways = [await stack.gateway(config=config) for _ in range(2)]
        for worker in workers:
            await stack.worker(*filter(None, [worker]), config=config)
        yield Site(stack, gateways)


def numbers(count: int) -> str:
    return "".join(f"{number} " for number in range(count))


def text_of(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def raw_events(http: httpx.AsyncClient, response_id: str, **query: Any) -> list[dict[str, Any]]:
    answer = await http.get(f"/v1/responses/{response_id}", params={"stream": "true", **query})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert not [line for line in answer.text.splitlines() if line.startswith("id:")]
    return [orjson.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
