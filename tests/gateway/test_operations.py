"""Gateways as processes: several on one port, draining, metrics that agree with the log (OPS-1, OPS-3)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed

from tests.gateway.raw import ACK, CONFIG, CONNECTED, DISCONNECTED, RawClient, client
from tests.processes import Proc, Stack, gone, wait_until
from tests.promptness import Stopwatch, assert_quick, prompt

METRICS_TIMEOUT_S = 30.0


async def metrics(url: str) -> dict[str, float]:
    """What Prometheus would read: value by name and labels."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(url)).text
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@asynccontextmanager
async def crowd(url: str, count: int) -> AsyncIterator[list[RawClient]]:
    """So many connections, all connected."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(url)) for _ in range(count)]
        for raw in clients:
            assert (await raw.action(CONNECTED))["action"] == CONNECTED
        yield clients


def serving(gateway: Proc) -> list[psutil.Process]:
    """The processes behind a gateway that was started with several."""
    children: list[psutil.Process] = psutil.Process(gateway.pid).children()
    return [child for child in children if "resource_tracker" not in command_of(child)]


def command_of(process: psutil.Process) -> str:
    """Its command line; for one that has just ended, the mark of those that do not serve."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return "resource_tracker"


async def test_processes_of_one_port_count_together_and_end_together(stack: Stack) -> None:
    gateway = await stack.gateway("--processes", "2", config=CONFIG)
    children = serving(gateway)
    assert len(children) == 2
    async with crowd(gateway.url, 12) as clients:
        for number, raw in enumerate(clients):
            assert (await raw.publish(f"plain:{number}", {"data": "x"}))["action"] == ACK
        for _ in range(4):
            # Whichever process answers says the same.
            found = await metrics(f"{gateway.url}/metrics")
            assert found["sht_gateway_connections"] == 12
            assert found["sht_gateway_frames_received_total"] == 12
        # A process that dies takes its connections along and is replaced.
        os.kill(children[0].pid, signal.SIGKILL)
        await wait_until(lambda: gone(children[0]) and len(serving(gateway)) == 2, 15)
        survivors = sum(await asyncio.gather(*(answers(raw) for raw in clients)))
        await wait_until(lambda: agree(gateway, survivors), METRICS_TIMEOUT_S)
    children = serving(gateway)
    gateway.terminate()
    assert await gateway.wait() == 0
    assert all(gone(child) for child in children)


async def agree(gateway: Proc, connections: int) -> bool:
    return (await metrics(f"{gateway.url}/metrics"))["sht_gateway_connections"] == connections


async def answers(raw: RawClient) -> bool:
    """Whether a connection still lives."""
    try:
        return bool((await raw.publish("plain:after", {"data": "y"}))["action"] == ACK)
    except ConnectionClosed:
        return False


async def test_processes_end_with_a_parent_that_was_killed(stack: Stack) -> None:
    gateway = await stack.gateway("--processes", "2", config=CONFIG)
    children = serving(gateway)
    os.kill(gateway.pid, signal.SIGKILL)
    await wait_until(lambda: all(gone(child) for child in children), 10)


@prompt
async def test_a_drain_is_paced_and_resumable(stack: Stack) -> None:
    config = CONFIG.replace("[gateway]\n", "[gateway]\ndrain_ms = 1500\n")
    gateway, other = await stack.gateway(config=config), await stack.gateway(config=config)
    async with crowd(gateway.url, 12) as clients:
        async with client(gateway.url) as resuming:
            key = (await resuming.action(CONNECTED))["connectionDetails"]["connectionKey"]
            gateway.terminate()
            began = time.monotonic()
            left: list[float] = []

            async def leave(raw: RawClient) -> None:
                ended = await raw.action(DISCONNECTED)
                assert (ended["error"]["code"], ended["error"]["statusCode"]) == (80003, 400)
                left.append(time.monotonic() - began)
                await raw.closed()

            await asyncio.gather(*(leave(raw) for raw in [*clients, resuming]))
        assert await gateway.wait() == 0
        # Spread over the drain: not all in one go, and no one much after it.
        assert max(left) - min(left) > 0.7
        assert_quick(max(left), 1.5 + 1.0)
        async with client(other.url, resume=key) as again:
            resumed = await again.action(CONNECTED)
            assert "error" not in resumed


async def test_ops_1_metrics_agree_with_the_log(stack: Stack) -> None:
    gateway = await stack.gateway(config=CONFIG)
    async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "secret")) as http:

        async def send(session: str, text: str) -> str:
            answer = await http.post(f"/v1/sessions/{session}/turns", json={"text": text})
            turn: str = answer.json()["turnId"]
            return turn

        # No one works yet: the queue has a depth and an age.
        waiting = [await send(f"bound:{number}", "script: tokens=3") for number in range(3)]
        assert len(waiting) == 3
        found = await metrics(f"{gateway.url}/metrics")
        assert found["sht_queue_depth,agent=assistant"] == 3
        assert 0 < found["sht_queue_oldest_seconds,agent=assistant"] < 20

        worker = await stack.worker("--metrics-port", "0", config=CONFIG)
        address = next(line.split()[1] for line in worker.lines if line.startswith("metrics "))
        await send("bound:fails", "script: tokens=5 fail_at=2 always=1")
        cancelled = await send("bound:cancelled", "script: tokens=1000 rate=20")
        answer = await http.post("/v1/sessions/bound:cancelled/cancel", json={"turnId": cancelled})
        assert answer.json()["matched"] == [cancelled]

        async def all_ended() -> bool:
            now = await metrics(address)
            return sum(value for name, value in now.items() if name.startswith("sht_turns_total")) == 5

        await wait_until(all_ended, METRICS_TIMEOUT_S)
        reasons: list[str] = []
        for session in (*(f"bound:{number}" for number in range(3)), "bound:fails", "bound:cancelled"):
            items = (await http.get(f"/channels/{session}/messages")).json()
            reasons += [
                item["extras"]["ai"]["transport"]["run-reason"]
                for item in items
                if item.get("name") == "ai-run-end"
            ]
        by_outcome = {"completed": "complete", "failed": "error", "cancelled": "cancelled"}
        for address_of in (address, f"{gateway.url}/metrics"):
            found = await metrics(address_of)
            for outcome, reason in by_outcome.items():
                assert found[f"sht_turns_total,outcome={outcome}"] == reasons.count(reason)
            assert found["sht_queue_depth,agent=assistant"] == 0
            assert found["sht_lease_losses_total"] == 0
        found = await metrics(f"{gateway.url}/metrics")
        assert found["sht_gateway_cancel_seconds_count"] == 1
        assert found["sht_gateway_turns_cancelled_total"] == 1
    worker.terminate()
    assert await worker.wait() == 0


async def test_a_lost_lease_is_counted(stack: Stack) -> None:
    config = CONFIG + "\n[worker]\nlease_ms = 500\n"
    gateway = await stack.gateway(config=config)
    victim = await stack.worker(config=config)
    async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "secret")) as http:
        body = {"text": "script: tokens=1000 rate=20"}
        answer = await http.post("/v1/sessions/bound:lost/turns", json=body)
        turn = answer.json()["turnId"]

        async def is_active() -> bool:
            status = (await http.get(f"/v1/sessions/bound:lost/turns/{turn}")).json()["status"]
            return bool(status == "active")

        await wait_until(is_active)
        victim.kill()
        await stack.worker(config=config)

        async def counted() -> bool:
            return (await metrics(f"{gateway.url}/metrics"))["sht_lease_losses_total"] == 1

        await wait_until(counted, METRICS_TIMEOUT_S)
        await http.post("/v1/sessions/bound:lost/cancel", json={"all": True})


async def test_fan_out_lag_is_measured(stack: Stack) -> None:
    gateway = await stack.gateway(config=CONFIG)
    async with client(gateway.url) as raw:
        await raw.attach("plain:lag")
        for _ in range(40):
            await raw.publish("plain:lag", {"data": "x"})
        for _ in range(40):
            await raw.message()
    found = await metrics(f"{gateway.url}/metrics")
    assert found["sht_gateway_fanout_lag_seconds_count"] >= 2
    assert found["sht_gateway_fanout_lag_seconds_sum"] / found["sht_gateway_fanout_lag_seconds_count"] < 1


@prompt
async def test_a_stopping_gateway_lets_event_streams_go(stack: Stack) -> None:
    gateway = await stack.gateway(config=CONFIG)
    async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "secret")) as http:
        async with http.stream("GET", "/v1/sessions/plain:1/events") as response:
            lines = response.aiter_lines()
            assert await anext(lines) == "event: attached"
            watch = Stopwatch()
            gateway.terminate()
            assert [line async for line in lines][-1] == ""
        assert await gateway.wait() == 0
    watch.assert_below(4)
    assert "Traceback" not in gateway.log
