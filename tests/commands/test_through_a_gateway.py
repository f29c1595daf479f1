"""Commands of operators with `--url`: the same as in Redis, and with the right `console` only."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from selfhost_transport.errors import (
    CapabilityError,
    ConnectionFailed,
    InvalidArgument,
    NotFound,
    Unauthorized,
)
from selfhost_transport.settings import load_settings
from selfhost_transport.store.dead_letters import DeadLetter
from selfhost_transport.store.stores import Stores
from tests.commands.conftest import Call
from tests.processes import Proc, Stack, wait_until

CONFIG = """
[worker]
lease_ms = 400
max_attempts = 1

[[keys]]
name = "app.operator"
secret = "operator"

[[keys]]
name = "app.chat"
secret = "chat"
capability = { "*" = ["subscribe", "publish", "history"] }

[[namespaces]]
id = "chat"
agent = "assistant"

[[webhooks]]
name = "backend"
url = "http://127.0.0.1:1/nothing-listens"
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
max_attempts = 1
events = ["turn.dead_letter"]
"""


async def test_operators_work_through_a_gateway_as_in_redis(stack: Stack, call: Call) -> None:
    gateway = await stack.gateway(config=CONFIG)
    through = ("--url", gateway.url, "--key", "app.operator:operator")

    async def run(*words: str) -> str:
        done = await asyncio.to_thread(call, *words)
        assert done.exit_code == 0, (done.output, done.exception)
        return str(done.output)

    async def error(*words: str) -> BaseException | None:
        return (await asyncio.to_thread(call, *words)).exception

    async with httpx.AsyncClient(base_url=gateway.url, auth=("app.operator", "operator")) as http:
        await _lose_a_worker(stack, gateway, http)
        await stack.worker(config=CONFIG)
        await http.post(
            "/v1/sessions/chat:a/turns", json={"text": "script: tokens=5000 rate=20", "clientId": "ann"}
        )
        await http.post(
            "/v1/sessions/chat:b/turns", json={"text": "script: tokens=5000 rate=20", "clientId": "bob"}
        )

        async def runs() -> bool:
            turns = (await http.get("/v1/operator/overview")).json()["turns"]
            return [one["status"] for one in turns] == ["active", "active"]

        await wait_until(runs, 10)

    # Sessions: those in use, of which Redis knows as much.
    lines = json.loads(await run("inspect", "--json", *through))
    direct = {one["session"]: one for one in json.loads(await run("inspect", "--json"))}
    assert [one["session"] for one in lines] and {one["session"] for one in lines} == {"chat:a", "chat:b"}
    assert all(one["open"] == direct[one["session"]]["open"] == 1 for one in lines)
    report = json.loads(await run("inspect", "chat:a", "--json", *through))
    assert report.keys() == json.loads(await run("inspect", "chat:a", "--json")).keys()
    (turn,) = report["turns"]
    assert (turn["owner"], turn["status"], turn["lease_ms"] > 0) == ("ann", "active", True)
    assert "open turns: 1" in await run("inspect", "chat:a", *through)
    assert isinstance(await error("inspect", "chat:none", *through), NotFound)

    # Cancels.
    cancelled = json.loads(
        await run("cancel", "chat:a", "--turn", turn["turn"], "--by", "olga", "--json", *through)
    )
    assert (cancelled["matched"], cancelled["alreadyEnded"]) == ([turn["turn"]], [])
    again = json.loads(await run("cancel", "chat:a", "--turn", turn["turn"], "--json", *through))
    assert again["matched"] == []
    ended = json.loads(await run("inspect", "chat:a", "--json", *through))["ended"]
    assert (ended[-1]["reason"], ended[-1]["cancelled_by"]) == ("cancelled", "olga")
    stop = json.loads(await run("cancel", "--all", "--prefix", "chat:", "--json", *through))
    assert (stop["by"], stop["turns"], list(stop["sessions"])) == ("operator", 1, ["chat:b"])

    # Letters.
    letters = json.loads(await run("dead", "list", "--json", *through))
    assert letters == json.loads(await run("dead", "list", "--json")) and len(letters) == 1
    assert (await run("dead", "requeue", letters[0]["letter_id"], *through)).startswith("turn ")
    assert isinstance(await error("dead", "requeue", letters[0]["letter_id"], *through), NotFound)
    (event,) = json.loads(await run("webhooks", "dead", "backend", "--json", *through))
    assert event["event"] == "dead" and event["session"] == "chat:dead"
    await run("webhooks", "requeue", "backend", event["letter_id"], *through)
    assert isinstance(await error("webhooks", "requeue", "backend", event["letter_id"], *through), NotFound)

    async def given_up_again() -> list[Any]:
        return list(json.loads(await run("webhooks", "dead", "backend", "--json", *through)))

    assert (await wait_until(given_up_again, 10))[0]["turn_id"] == event["turn_id"]
    assert "1 delivered again" in await run("webhooks", "requeue", "backend", "--all", *through)
    assert isinstance(await error("webhooks", "dead", "none", *through), NotFound)
    assert isinstance(await error("webhooks", "requeue", "backend", *through), InvalidArgument)
    assert "nothing was given up" in await run("push", "dead", *through)

    # Workers.
    (worker,) = json.loads(await run("workers", "list", "--json", *through))
    assert worker["agents"] == ["assistant"]
    assert "draining" in await run("workers", "drain", worker["worker"], *through)

    async def drained() -> bool:
        return "no workers" in await run("workers", "list", *through)

    await wait_until(drained, 10)
    assert isinstance(await error("workers", "drain", worker["worker"], *through), NotFound)

    # Rights.
    assert isinstance(await error("inspect", "--url", gateway.url, "--key", "app.chat:chat"), CapabilityError)
    assert isinstance(await error("inspect", "--url", gateway.url, "--key", "app.chat:wrong"), Unauthorized)
    assert isinstance(
        await error("inspect", "--url", "http://127.0.0.1:1", "--key", "a.b:c"), ConnectionFailed
    )
    assert isinstance(await error("inspect", "--url", "nonsense", "--key", "a.b:c"), InvalidArgument)


async def _lose_a_worker(stack: Stack, gateway: Proc, http: httpx.AsyncClient) -> None:
    """One turn becomes a dead letter."""
    worker = await stack.worker(config=CONFIG)
    await http.post(
        "/v1/sessions/chat:dead/turns", json={"text": "script: tokens=60 rate=20", "clientId": "eve"}
    )

    async def runs() -> bool:
        return bool((await http.get("/v1/operator/overview")).json()["turns"])

    await wait_until(runs, 10)
    worker.kill()
    await worker.wait()
    # Any worker of another agent looks after the leases; the gateway's own workers are none.
    reaping = await stack.worker(config=CONFIG)
    stores = Stores.build(load_settings(redis=stack.redis_url, redis_prefix=stack.redis_prefix))

    async def buried() -> list[DeadLetter]:
        return await stores.dead_letters.all()

    try:
        await wait_until(buried, 15)
    finally:
        await stores.close()
    reaping.terminate()
    await reaping.wait()


@pytest.mark.parametrize("command", [("dead", "list"), ("workers", "list"), ("push", "dead")])
def test_without_an_address_they_work_in_redis(call: Call, command: tuple[str, ...]) -> None:
    assert call(*command).exit_code == 0


def test_a_new_key_for_pushes_is_a_configuration(call: Call) -> None:
    text = call("push", "keys").output
    assert text.startswith("[push]\nprivate_key = ") and text != call("push", "keys").output
