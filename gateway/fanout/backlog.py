"""What a subscription has missed, read from the log and conflated where that is much (sections 5.4 and 7.4)."""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.background import Background
from gateway.fanout.delivery import Delivery
from gateway.fanout.open_messages import OpenMessages
from selfhost_transport.store.entries import Created, Entry, Ref
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.serial import Position

BATCH: Final = 1000
"""Entries read from the log at once."""
CONFLATE_ABOVE: Final = 64
"""Backlogs longer than this carry current states instead of every delta."""


class Backlogs:
    """The backlogs of one session, and those that are being read for several subscriptions at once.

    After a gateway was replaced all viewers of a session come at once: one reading and one encoding serve them.
    """

    __slots__ = ("_session", "_shared", "_store", "_tasks")

    def __init__(self, store: SessionStore, session: str, tasks: Background) -> None:
        self._store = store
        self._session = session
        self._tasks = tasks
        self._shared: dict[tuple[str, Position, Position], asyncio.Future[list[Delivery]]] = {}

    async def read(self, epoch: str, after: Position, until: Position) -> list[Delivery]:
        """Entries after a position up to another, conflated when there are many. Raises ContinuityLost."""
        return await read_backlog(self._store, self._session, epoch, after, until)

    async def shared(self, epoch: str, after: Position, until: Position) -> list[Delivery]:
        """The same for a subscription that begins at `after`: what was delivered to others before does not matter to it.

        The list is not to be changed.
        """
        key = (epoch, after, until)
        reading = self._shared.get(key)
        if reading is None:
            reading = self._shared[key] = asyncio.get_running_loop().create_future()
            self._tasks.start(self._fill(reading, *key))
        return await asyncio.shield(reading)

    async def _fill(
        self,
        reading: asyncio.Future[list[Delivery]],
        epoch: str,
        after: Position,
        until: Position,
    ) -> None:
        try:
            reading.set_result(await self.read(epoch, after, until))
        except Exception as error:
            reading.set_exception(error)
            # The requester may be gone.
            reading.exception()
        finally:
            del self._shared[epoch, after, until]
            reading.cancel()


async def read_backlog(
    store: SessionStore, session: str, epoch: str, after: Position, until: Position
) -> list[Delivery]:
    """Entries after a position up to another, conflated when there are many. Raises ContinuityLost."""
    found: list[Delivery] = []
    conflated: set[Ref] = set()
    # Headers as they were then, not as they are now.
    past = OpenMessages(epoch)
    while after < until:
        entries = await store.read_after(session, after, BATCH)
        found.extend(past.delivery(entry) for entry in entries if _replayed(entry, until))
        if len(found) > CONFLATE_ABOVE:
            found = _conflate(found, conflated)
        if len(entries) < BATCH:
            break
        after = entries[-1].position
    return found


def _conflate(deliveries: list[Delivery], conflated: set[Ref]) -> list[Delivery]:
    """Of each message's appends keep the first, to be delivered as the message's current state."""
    kept: list[Delivery] = []
    here: set[Ref] = set()
    for delivery in deliveries:
        if delivery.is_append and delivery.ref is not None:
            if delivery.ref in here or (delivery.ref in conflated and not delivery.aggregate_only):
                continue
            here.add(delivery.ref)
            kept.append(delivery if delivery.aggregate_only else delivery.conflated())
        else:
            kept.append(delivery)
    conflated |= here
    return kept


def _replayed(entry: Entry, until: Position) -> bool:
    return entry.position <= until and not (isinstance(entry, Created) and entry.ephemeral)
