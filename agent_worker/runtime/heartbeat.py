"""Registers in Redis that this worker serves its agents (PRE-11)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from selfhost_transport.errors import TransportError
from selfhost_transport.store.fleet import Fleet

logger = logging.getLogger(__name__)

_BEATS_PER_TTL = 3


class Heartbeat:
    """Repeats at a third of `ttl_ms` that a worker is there; a worker that dies is forgotten after `ttl_ms`."""

    def __init__(
        self, fleet: Fleet, worker_id: str, agents: Collection[str], ttl_ms: int, *, free_models: bool = False
    ) -> None:
        self._fleet = fleet
        self._worker_id = worker_id
        self._agents = agents
        self._ttl_ms = ttl_ms
        self._free_models = free_models

    async def beat(self) -> None:
        """Refresh the registration until cancelled."""
        while True:
            await self.announce(self._ttl_ms)
            await asyncio.sleep(self._ttl_ms / 1000 / _BEATS_PER_TTL)

    async def announce(self, ttl_ms: int) -> None:
        """Tell once; 0: this worker takes nothing more."""
        try:
            for agent in self._agents:
                await self._fleet.announce(agent, self._worker_id, ttl_ms, free_models=self._free_models)
        except TransportError as error:
            logger.warning("worker.heartbeat_failed worker=%s error=%s", self._worker_id, error)
