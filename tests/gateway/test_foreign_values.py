"""What is in Redis, or in a request, is not what anyone would put there: it is answered, and harms no one else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.keys import Keyspace
from tests.gateway.raw import ATTACHED, CONFIG, DETACHED, client
from tests.processes import Proc, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

HALF = "\ud83d"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    async with Stack.opened(redis_server.url, tmp_path_factory.mktemp("foreign")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(stack: Stack) -> Proc:
    return await stack.gateway(config=CONFIG)


async def post(gateway: Proc, path: str, body: Any) -> httpx.Response:
    async with httpx.AsyncClient(auth=("app.key", "secret"), timeout=10) as http:
        headers = {"content-type": "application/json"}
        return await http.post(gateway.url + path, content=json.dumps(body), headers=headers)


@pytest.mark.parametrize("value", [("SET", "neighbour"), ("RPUSH", "neighbour")])
async def test_an_attach_is_answered_whatever_is_in_redis(
    stack: Stack, gateway: Proc, value: tuple[str, str]
) -> None:
    session = f"foreign-{value[0]}"
    store = RedisConnection(stack.redis_url)
    head = f"{Keyspace(stack.redis_prefix).base_of(session)}p:{session}"
    async with client(gateway.url) as raw:
        await store.command(value[0], head, value[1])
        refused = await raw.attach(session)
        assert (refused["action"], refused["error"]["code"]) == (DETACHED, 50000)
        # Once it is gone, the session works, on the same connection.
        await store.command("DEL", head)
        assert (await raw.attach(session))["action"] == ATTACHED
    await store.close()


def run(**changes: Any) -> dict[str, Any]:
    question = {"id": "m", "role": "user", "content": "hi"}
    return {"threadId": "bound:one", "runId": "r", "messages": [question], **changes}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/agui", run(threadId=HALF)),
        ("/v1/agui/connect", run(threadId=f"bound:{HALF}")),
        ("/v1/agui", run(runId=HALF)),
        ("/v1/agui", run(messages=[{"id": HALF, "role": "user", "content": "hi"}])),
        ("/v1/agui", run(messages=[{"id": "m", "role": {"a": 1}, "content": "hi"}])),
        ("/v1/agui", run(messages=[{"id": "m", "role": [], "content": "hi"}])),
        ("/api/chat", {"id": f"bound:{HALF}", "messages": [], "trigger": HALF}),
        ("/v1/responses", {"model": "assistant", "conversation": f"bound:{HALF}", "input": "hi"}),
        ("/v1/responses", {"model": HALF, "input": "hi"}),
        ("/v1/responses", {"model": "assistant", "input": [{"role": {}, "content": "hi"}]}),
        ("/v1/responses", {"model": "assistant", "input": [{"type": HALF, "content": "hi"}]}),
        ("/keys/app.key/requestToken", {"keyName": HALF, "timestamp": 1, "nonce": "n", "mac": "m"}),
    ],
)
async def test_halves_of_characters_and_wrong_types_are_refused_in_words(
    gateway: Proc, path: str, body: dict[str, Any]
) -> None:
    refused = await post(gateway, path, body)
    assert 400 <= refused.status_code < 500, refused.text
    assert refused.text
    assert "Traceback" not in gateway.log
