"""What goes wrong: processes killed and frozen, networks cut and silent, and what can go wrong in Redis (servers.py)."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.agents import WORKER
from tests.chaos.servers import Fault, Servers
from tests.e2e.proxy import Network
from tests.e2e.stage import Stage

LEASE_S = 2.0


@dataclass(slots=True)
class Faults:
    """Breaks one thing at a time and mends it before the next; `done` counts what was broken."""

    stage: Stage
    servers: Servers
    networks: list[Network]
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)

    async def go_on(self, seconds: float) -> None:
        """Break things for so long; everything is mended in the end."""
        ways: list[Fault] = [
            self.kill_worker, self.kill_gateway, self.cut_network, self.silence_network, self.stop_worker,
            *self.servers.faults,
        ]  # fmt: skip
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        round_of: list[Fault] = []
        while loop.time() < until:
            if not round_of:
                round_of = self.chance.sample(ways, len(ways))
            way = round_of.pop()
            await way()
            self.done[way.__name__] += 1
            await asyncio.sleep(self.chance.uniform(0.2, 1.0))

    async def kill_worker(self) -> None:
        """kill -9; another one is started."""
        victim = self.stage.workers.pop(0)
        victim.kill()
        await victim.wait()
        await self.stage.add_worker(WORKER)

    async def stop_worker(self) -> None:
        """SIGTERM, as a deploy does; another one is started first."""
        victim = self.stage.workers.pop(0)
        await self.stage.add_worker(WORKER)
        victim.terminate()
        await victim.wait()

    async def freeze_worker(self) -> None:
        """SIGSTOP past the lease, then SIGCONT: the turns have new owners meanwhile."""
        victim = self.chance.choice(self.stage.workers)
        victim.pause()
        await asyncio.sleep(LEASE_S * 1.8)
        victim.proceed()

    async def freeze_beside(self, stop: asyncio.Event) -> None:
        """One worker after the other, whatever else is broken: what a writer does that has lost its turn is seen then."""
        while not stop.is_set():
            with contextlib.suppress(ProcessLookupError):
                await self.freeze_worker()
                self.done["freeze_worker"] += 1
            await asyncio.sleep(self.chance.uniform(0.5, 2.0))

    async def kill_gateway(self) -> None:
        """kill -9; it comes back at its address."""
        index = self.chance.randrange(len(self.stage.gateways))
        victim = self.stage.gateways[index]
        port = victim.port
        victim.kill()
        await victim.wait()
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))
        self.stage.gateways[index] = await self.stage.stack.gateway(
            port=port, config=self.stage.config, env=self.stage.env
        )

    async def cut_network(self) -> None:
        """The connections of one gateway's clients are reset, and refused for a while."""
        network = self.chance.choice(self.networks)
        network.cut()
        await asyncio.sleep(self.chance.uniform(0.1, 2.0))
        network.mend()

    async def silence_network(self) -> None:
        """A cable is pulled: nothing arrives, nothing is refused; then the connections are lost."""
        network = self.chance.choice(self.networks)
        network.is_silent = True
        await asyncio.sleep(self.chance.uniform(0.1, 1.5))
        network.cut()
        network.is_silent = False
        network.mend()
