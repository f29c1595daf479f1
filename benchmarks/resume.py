"""Resume: what a client that comes back costs, by the number of entries it missed."""

from __future__ import annotations

import asyncio

from benchmarks.clients import Listener, client, close_all, start_all
from benchmarks.figures import Figure
from benchmarks.rig import KEY, TOKEN, Cpu, gateway, rig
from selfhost_transport.loadtest.plan import Target
from selfhost_transport.wire.serial import format_position

_CLIENTS = 100
_MISSED = (0, 20, 1000)


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return [asyncio.run(_run(missed)) for missed in _MISSED]


async def _run(missed: int) -> Figure:
    session = "bench:resume"
    async with rig() as bench, gateway(bench.server) as child:
        turn = await bench.open_text(session)
        await bench.turns.append(turn.lease, turn.text, TOKEN)
        head = await bench.sessions.open(session)
        seen = format_position(head.position, head.epoch)
        await asyncio.gather(*(bench.turns.append(turn.lease, turn.text, TOKEN) for _ in range(missed)))
        target = Target.parse([await child.ready()], KEY, "")
        listeners = [Listener(seen) for _ in range(_CLIENTS)]
        clients = [client(target, number, session, one) for number, one in enumerate(listeners)]
        cpu = Cpu(child.pid)
        await start_all(clients)
        for one in listeners if missed else ():
            await one.arrived()
        spent = cpu.spent_us() / _CLIENTS
        await close_all(clients)
        return Figure("resume", f"connect and resume, {missed} entries missed", spent, "us per client")
