"""Strangers at the doors of AG-UI clients: what their rights do not cover has no effect, and reveals nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.front_ends import PEOPLE, namespace
from tests.processes import Proc, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = PEOPLE + namespace("bound", "assistant")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(site: Stack) -> Proc:
    return await site.gateway(config=CONFIG)


def _run(thread: str, run_id: str = "run-1") -> dict[str, Any]:
    message = {"id": f"m-{run_id}", "role": "user", "content": "hi"}
    return {"threadId": thread, "runId": run_id, "protocolVersion": "1.0", "messages": [message]}


async def _post(gateway: Proc, key: str, path: str, body: dict[str, Any]) -> int:
    # An accepted run stays open, since no worker answers it: the status is enough.
    async with (
        httpx.AsyncClient(base_url=gateway.url, auth=(f"app.{key}", "secret")) as client,
        client.stream("POST", path, json=body) as response,
    ):
        return response.status_code


async def _turns(gateway: Proc, thread: str) -> int:
    async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "secret")) as client:
        return len((await client.get(f"/v1/sessions/{thread}/turns")).json()["turns"])


@pytest.mark.parametrize("key", ["reader", "listener", "writer", "other"])
async def test_without_the_rights_nothing_runs(gateway: Proc, key: str) -> None:
    thread = f"bound:{key}"
    for path in ("/v1/agui", "/v1/agui/agent/default/run"):
        assert await _post(gateway, key, path, _run(thread)) in (401, 403)
    single = {"method": "agent/run", "params": {"agentId": "default"}, "body": _run(thread)}
    assert await _post(gateway, key, "/v1/agui", single) in (401, 403)
    assert await _turns(gateway, thread) == 0


@pytest.mark.parametrize("key", ["reader", "listener", "writer", "other"])
async def test_without_the_rights_nothing_is_stopped(gateway: Proc, key: str) -> None:
    thread = f"bound:stop-{key}"
    assert await _post(gateway, "key", "/v1/agui", _run(thread)) == 200
    paths = {"/v1/agui/stop": {"threadId": thread, "runId": "run-1"}, f"/v1/agui/agent/x/stop/{thread}": {}}
    for path, body in paths.items():
        await _post(gateway, key, path, body)
    assert await _turns(gateway, thread) == 1
    assert await _post(gateway, "key", "/v1/agui/stop", {"threadId": thread}) == 200
    assert await _turns(gateway, thread) == 0


@pytest.mark.parametrize(("key", "may"), [("reader", True), ("listener", False), ("other", False)])
async def test_a_conversation_is_shown_to_those_who_may_read_it(gateway: Proc, key: str, may: bool) -> None:
    thread = f"bound:read-{key}"
    assert await _post(gateway, "key", "/v1/agui", _run(thread)) == 200
    found = [
        await _post(gateway, key, path, _run(thread, "another"))
        for path in ("/v1/agui/connect", "/v1/agui/agent/default/connect")
    ]
    async with httpx.AsyncClient(base_url=gateway.url, auth=(f"app.{key}", "secret")) as client:
        found.append((await client.get("/v1/agui", params={"threadId": thread})).status_code)
    assert all(status == 200 for status in found) if may else all(s in (401, 403) for s in found)
