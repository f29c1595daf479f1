"""Commands of operators with `--url`: the same as in Redis, and with the right `console` only."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Operator:
    """Calls commands, in Redis or, with `through`, through the gateway."""

    call: Call
    through: tuple[str, ...]

    async def run(self, *words: str) -> str:
        """The output of a command that succeeds."""
        done = await asyncio.to_thread(self.call, *words)
        assert done.exit_code == 0, (done.output, done.exception)
        return str(done.output)

    async def json(self, *words: str) -> Any:
        """What a command prints with `--json`, through the gateway."""
        return json.loads(await self.run(*words, "--json", *self.through))

    async def error(self, *words: str) -> BaseException | None:
        """What a command ends with."""
        return (await asyncio.to_thread(self.call, *words)).exception


async def test_operators_work_through_a_gateway_as_in_redis(stack: Stack, call: Call) -> None:
    gateway = await stack.gateway(config=CONFIG)
    operator = Operator(call, ("--url", gateway.url, "--key", "app.operator:operator"))
    async with httpx.AsyncClient(base_url=gateway.url, auth=("app.operator", "operator")) as http:
        await _lose_a_worker(stack, gateway, http)
        await stack.worker(config=CONFIG)
        await _start_two_turns(http)
    await _sessions_are_shown(operator)
    await _turns_are_cancelled(operator)
    await _dead_letters_are_sent_again(operator)
    await _events_are_delivered_again(operator)
    await _workers_are_drained(operator)
    await _others_are_refused(operator, gateway.url)


async def _start_two_turns(http: httpx.AsyncClient) -> None:
    for session, client in (("chat:a", "ann"), ("chat:b", "bob")):
        body = {"text": "script: tokens=5000 rate=20", "clientId": client}
        await http.post(f"/v1/sessions/{session}/turns", json=body)

    async def run() -> bool:
        turns = (await http.get("/v1/operator/overview")).json()["turns"]
        return [one["status"] for one in turns] == ["active", "active"]

    await wait_until(run, 10)


async def _sessions_are_shown(operator: Operator) -> None:
    """Those in use, of which Redis knows as much."""
    lines = await operator.json("inspect")
    direct = {one["session"]: one for one in json.loads(await operator.run("inspect", "--json"))}
    assert {one["session"] for one in lines} == {"chat:a", "chat:b"}
    assert all(one["open"] == direct[one["session"]]["open"] == 1 for one in lines)
    report = await operator.json("inspect", "chat:a")
    assert report.keys() == json.loads(await operator.run("inspect", "chat:a", "--json")).keys()
    (turn,) = report["turns"]
    assert (turn["owner"], turn["status"], turn["lease_ms"] > 0) == ("ann", "active", True)
    assert "open turns: 1" in await operator.run("inspect", "chat:a", *operator.through)
    assert isinstance(await operator.error("inspect", "chat:none", *operator.through), NotFound)


async def _turns_are_cancelled(operator: Operator) -> None:
    (turn,) = (await operator.json("inspect", "chat:a"))["turns"]
    cancelled = await operator.json("cancel", "chat:a", "--turn", turn["turn"], "--by", "olga")
    assert (cancelled["matched"], cancelled["alreadyEnded"]) == ([turn["turn"]], [])
    assert (await operator.json("cancel", "chat:a", "--turn", turn["turn"]))["matched"] == []
    ended = (await operator.json("inspect", "chat:a"))["ended"]
    assert (ended[-1]["reason"], ended[-1]["cancelled_by"]) == ("cancelled", "olga")
    stop = await operator.json("cancel", "--all", "--prefix", "chat:")
    assert (stop["by"], stop["turns"], list(stop["sessions"])) == ("operator", 1, ["chat:b"])


async def _dead_letters_are_sent_again(operator: Operator) -> None:
    letters = await operator.json("dead", "list")
    assert letters == json.loads(await operator.run("dead", "list", "--json")) and len(letters) == 1
    requeue = ("dead", "requeue", letters[0]["letter_id"], *operator.through)
    assert (await operator.run(*requeue)).startswith("turn ")
    assert isinstance(await operator.error(*requeue), NotFound)


async def _events_are_delivered_again(operator: Operator) -> None:
    (event,) = await operator.json("webhooks", "dead", "backend")
    assert event["event"] == "dead" and event["session"] == "chat:dead"
    requeue = ("webhooks", "requeue", "backend", event["letter_id"], *operator.through)
    await operator.run(*requeue)
    assert isinstance(await operator.error(*requeue), NotFound)

    async def given_up_again() -> list[Any]:
        return list(await operator.json("webhooks", "dead", "backend"))

    assert (await wait_until(given_up_again, 10))[0]["turn_id"] == event["turn_id"]
    everything = ("webhooks", "requeue", "backend", "--all", *operator.through)
    assert "1 delivered again" in await operator.run(*everything)
    assert isinstance(await operator.error("webhooks", "dead", "none", *operator.through), NotFound)
    nothing = ("webhooks", "requeue", "backend", *operator.through)
    assert isinstance(await operator.error(*nothing), InvalidArgument)
    assert "nothing was given up" in await operator.run("push", "dead", *operator.through)


async def _workers_are_drained(operator: Operator) -> None:
    (worker,) = await operator.json("workers", "list")
    assert worker["agents"] == ["assistant"]
    drain = ("workers", "drain", worker["worker"], *operator.through)
    assert "draining" in await operator.run(*drain)

    async def drained() -> bool:
        return "no workers" in await operator.run("workers", "list", *operator.through)

    await wait_until(drained, 10)
    assert isinstance(await operator.error(*drain), NotFound)


async def _others_are_refused(operator: Operator, url: str) -> None:
    for where, key, refusal in (
        (url, "app.chat:chat", CapabilityError),
        (url, "app.chat:wrong", Unauthorized),
        ("http://127.0.0.1:1", "a.b:c", ConnectionFailed),
        ("nonsense", "a.b:c", InvalidArgument),
    ):
        assert isinstance(await operator.error("inspect", "--url", where, "--key", key), refusal)


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
