"""Attach: a late joiner in the middle of a long answer gets its text at once, not its tokens one by one."""

from __future__ import annotations

import asyncio

from benchmarks.clients import Listener, client, close_all, start_all
from benchmarks.figures import Figure
from benchmarks.rig import KEY, TOKEN, Cpu, gateway, rig
from selfhost_transport.loadtest.plan import Target

_JOINERS = 100
_TOKENS = 2000


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return asyncio.run(_run())


async def _run() -> list[Figure]:
    session = "bench:late"
    async with rig() as bench, gateway(bench.server) as child:
        turn = await bench.open_text(session)
        await asyncio.gather(*(bench.turns.append(turn.lease, turn.text, TOKEN) for _ in range(_TOKENS)))
        target = Target.parse([await child.ready()], KEY, "")
        listeners = [Listener() for _ in range(_JOINERS)]
        clients = [client(target, number, session, one) for number, one in enumerate(listeners)]
        await start_all(clients)
        cpu = Cpu(child.pid)
        # First contact with the message: everyone needs its aggregate.
        await bench.turns.append(turn.lease, turn.text, TOKEN)
        for one in listeners:
            await one.arrived()
        spent = cpu.spent_us() / _JOINERS
        await close_all(clients)
        return [Figure("attach", f"first contact with a text of {_TOKENS} tokens", spent, "us per joiner")]
