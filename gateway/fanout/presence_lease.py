"""Keeps this process' lease on the presence members it holds, and takes out members whose time has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Protocol

from selfhost_transport.errors import StoreUnsuitable, TransportError
from selfhost_transport.store.presence import Holder, PresenceStore

logger = logging.getLogger(__name__)

SWEEP_S: Final = 0.5
"""How often members are looked for whose time has come; how much later than asked for they may leave."""


_DUTY_MS: Final = 400
"""Shorter than the pause between two sweeps of one process."""


class PresenceSocket(Protocol):
    """A connected socket that may hold members."""

    async def reclaim_presence(self) -> None:
        """Hold the connection's members again; where they left, make the client come back and enter again."""


class PresenceLease:
    """Renews and sweeps until it is cancelled. `lease_s`: after this without renewal a process counts as dead."""

    def __init__(self, store: PresenceStore, node: str, lease_s: float) -> None:
        self._store = store
        self._node = node
        self._lease_s = lease_s
        self._had_lease = False
        # The lease was lost, and the sockets do not all know yet.
        self._reclaiming = False
        # Loop time.
        self._renew_at = 0.0
        # Sockets whose loss is not in the store yet.
        self._lost: set[Holder] = set()

    async def run(self, sockets: Callable[[], Iterable[PresenceSocket]]) -> None:
        """Until cancelled. Redis being away is survived: the lease is renewed, or taken again, afterwards."""
        while True:
            # Where one of them fails, the others are still due.
            for step in (partial(self._renew_in_time, sockets), self._note_lost, self._sweep):
                try:
                    await step()
                except TransportError as error:
                    logger.warning("presence.keeping_failed node=%s error=%s", self._node, error)
            await asyncio.sleep(SWEEP_S)  # the clock of the sweep

    async def lost(self, holder: Holder) -> None:
        """A socket ended: its members leave in time, unless its connection is resumed. Never given up."""
        self._lost.add(holder)
        try:
            await self._note_lost()
        except TransportError as error:
            logger.warning("presence.loss_not_noted connection=%s error=%s", holder.connection_id, error)

    async def retire(self) -> None:
        """This process ends: its members may be resumed elsewhere, or leave in time."""
        try:
            await self._note_lost()
            await self._store.retire(self._node)
        except TransportError as error:
            # The lease expires anyway.
            logger.warning("presence.retire_failed node=%s error=%s", self._node, error)

    async def _sweep(self) -> None:
        left = await self._store.sweep_for_all(_DUTY_MS)
        if left:
            logger.info("presence.swept members=%d", left)

    async def _note_lost(self) -> None:
        refused: TransportError | None = None
        for holder in list(self._lost):
            try:
                await self._store.lost(holder)
            except StoreUnsuitable as error:
                # What is wrong with this one need not be so with the others.
                refused = error
            else:
                self._lost.discard(holder)
        if refused is not None:
            raise refused

    async def _renew_in_time(self, sockets: Callable[[], Iterable[PresenceSocket]]) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._renew_at:
            await self._renew(sockets)
            self._renew_at = now + self._lease_s / 3

    async def _renew(self, sockets: Callable[[], Iterable[PresenceSocket]]) -> None:
        kept = await self._store.renew(self._node)
        if self._had_lease and not kept:
            logger.warning("presence.lease_lost node=%s", self._node)
            self._reclaiming = True
        self._had_lease = True
        if self._reclaiming:
            await asyncio.gather(*(socket.reclaim_presence() for socket in sockets()))
            self._reclaiming = False
