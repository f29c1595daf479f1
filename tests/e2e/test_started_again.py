"""An application that carries gateway and worker is started several times in one process, as its own tests do."""

from __future__ import annotations

import asyncio
import importlib.util
from functools import partial
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.e2e.embedding_example import example
from tests.processes import Stack, wait_until

ANN = {"authorization": "Bearer session-of-ann"}


@pytest.fixture
def host(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The application of docs/embedding.md, imported once."""
    monkeypatch.setenv("REDIS_URL", stack.redis_url)
    monkeypatch.setenv("REDIS_PREFIX", stack.redis_prefix)
    file = stack.folder / "host.py"
    file.write_text(example())
    spec = importlib.util.spec_from_file_location("host_started_again", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def converse(app: Any, session: str) -> None:
    """One life of the application: start, two turns one after the other, stop."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://host", headers=ANN) as http,
    ):
        base = f"/realtime/v1/sessions/conversations:ann:{session}"

        async def are_answered(count: int) -> bool:
            messages = [item["message"] for item in (await http.get(f"{base}/messages")).json()["messages"]]
            texts = [part.get("text") for message in messages for part in message["parts"]]
            return len(messages) == count * 2 and texts.count("You said: Good morning") == count

        for count in (1, 2):
            assert (await http.post(f"{base}/turns", json={"text": "Good morning"})).is_success
            await wait_until(partial(are_answered, count), 10, "the turn is answered")


async def test_an_application_is_started_again_in_another_event_loop(host: ModuleType) -> None:
    for session in ("first", "second"):
        await asyncio.to_thread(asyncio.run, converse(host.app, session))
