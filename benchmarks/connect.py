"""Connect and attach: a gateway's CPU for a new connection, and for attaching it to a session no one watched."""

from __future__ import annotations

import asyncio
import time

from benchmarks.clients import Listener, client, close_all, start_all
from benchmarks.figures import Figure
from benchmarks.rig import KEY, Cpu, gateway, rig
from selfhost_transport.loadtest.plan import Target

_CONNECTIONS = 400


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return asyncio.run(_run())


async def _run() -> list[Figure]:
    async with rig() as bench, gateway(bench.server) as child:
        target = Target.parse([await child.ready()], KEY, "")
        cpu = Cpu(child.pid)
        own = await _open(target, "bench:{number}", cpu)
        shared = await _open(target, "bench:shared", cpu)
        return [
            Figure("connect", "connect, and attach to a session of its own", own[0], "us"),
            Figure("connect", "the same", own[1], "connections/s"),
            Figure("connect", "connect, and attach to a watched session", shared[0], "us"),
        ]


async def _open(target: Target, channel: str, cpu: Cpu) -> tuple[float, float]:
    """(gateway us per connection, connections per second)."""
    clients = [
        client(target, number, channel.format(number=number), Listener()) for number in range(_CONNECTIONS)
    ]
    cpu.spent_us()
    started = time.monotonic()
    await start_all(clients)
    elapsed, spent = time.monotonic() - started, cpu.spent_us()
    await close_all(clients)
    return spent / _CONNECTIONS, _CONNECTIONS / elapsed
