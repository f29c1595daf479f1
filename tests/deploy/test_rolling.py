"""An upgrade while people talk: each gateway and each worker is replaced under load, and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from selfhost_transport.loadtest.result import RunResult
from tests.processes import Proc, Stack, wait_until

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
TURNS, ROUNDS = (200, 5) if LONG else (16, 1)
CONFIG = """
[gateway]
drain_ms = 500

[worker]
grace_ms = 8000

[[keys]]
name = "app.key"
secret = "secret"

[[namespaces]]
id = "load"
agent = "assistant"
"""


class Balancer:
    """Passes connections on to gateways in turn: to those that are in `ports` when a client comes."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self._turn = itertools.count()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Its address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Drop what is left."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        port = self.ports[next(self._turn) % len(self.ports)]
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            for one in (writer, far_writer):
                one.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def balancer() -> AsyncIterator[Balancer]:
    made = Balancer()
    yield made
    await made.close()


async def _is_ready(gateway: Proc) -> bool:
    async with httpx.AsyncClient() as http:
        return (await http.get(f"{gateway.url}/readyz")).status_code == 200


async def _replace_gateway(stack: Stack, balancer: Balancer, old: Proc) -> Proc:
    """As a rolling update does: the new one is ready, new clients go to it, then the old one drains."""
    new = await stack.gateway(config=CONFIG)
    await wait_until(lambda: _is_ready(new))
    balancer.ports.append(new.port)
    balancer.ports.remove(old.port)
    old.terminate()
    assert await old.wait(30) == 0, old.log
    return new


async def _replace_worker(stack: Stack, old: Proc) -> Proc:
    new = await stack.worker(config=CONFIG)
    old.terminate()
    assert await old.wait(30) == 0, old.log
    return new


@pytest.mark.timeout(900 if LONG else 120)
async def test_a_rolling_restart_under_load_loses_nothing(
    stack: Stack, balancer: Balancer, tmp_path: Path
) -> None:
    gateways = [await stack.gateway(config=CONFIG)]
    workers = [await stack.worker(config=CONFIG)]
    balancer.ports = [gateway.port for gateway in gateways]
    report = tmp_path / "load.json"
    load = await stack.run(
        *(sys.executable, "-m", "selfhost_transport.cli", "loadtest", "--quiet"),
        *("--url", await balancer.start(), "--key", "app.key:secret", "--namespace", "load"),
        *("--turns", str(TURNS), "--rate", "20", "--tokens", "60", "--viewers", "2", "--processes", "1"),
        *("--duration", str(60 if LONG else 12), "--patience", "40", "--json", str(report)),
    )
    await wait_until(lambda: _turns_run(gateways[0]), 40)
    for _ in range(ROUNDS):
        gateways = [await _replace_gateway(stack, balancer, old) for old in gateways]
        workers = [await _replace_worker(stack, old) for old in workers]
    assert load.returncode is None, f"the load ended before the restarts did:\n{load.log}"
    assert await load.wait(90) == 0, load.log
    result = RunResult.load_file(report)
    assert result.outcomes["complete"] == result.counters["turns_sent"] > TURNS
    # Each client had its connection replaced, or the test has shown nothing.
    assert result.counters["lost_sockets"] >= TURNS * 2 * ROUNDS


async def _turns_run(gateway: Proc) -> bool:
    async with httpx.AsyncClient() as http:
        lines = (await http.get(f"{gateway.url}/metrics")).text.splitlines()
    done = [line for line in lines if line.startswith('sht_turns_total{outcome="completed"}')]
    return bool(done) and float(done[0].split()[-1]) >= TURNS / 2
