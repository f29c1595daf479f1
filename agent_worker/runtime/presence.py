"""What agents are doing, as members of their sessions' presence: thinking, streaming, idle (PRE-2, PRE-9)."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable
from dataclasses import dataclass, field
from enum import StrEnum

from selfhost_transport.errors import TransportError
from selfhost_transport.store.presence import MIN_REMAIN_MS, Holder, PresenceStore
from selfhost_transport.turns.values import to_text
from selfhost_transport.wire.actions import PresenceAction
from selfhost_transport.wire.presence import PresenceMessage

logger = logging.getLogger(__name__)

LINGER_S = 30.0
"""How long an agent stays in a session after its last turn there."""


class Activity(StrEnum):
    """What an agent does in a session. It is `offline` when it is no member."""

    THINKING = "thinking"
    STREAMING = "streaming"
    IDLE = "idle"


@dataclass(slots=True)
class _Member:
    # What each running turn of the session says.
    turns: dict[str, str] = field(default_factory=dict)
    shown: str | None = None
    leaving: asyncio.TimerHandle | None = None

    def summary(self) -> str:
        """One word for all turns: the busiest of those known, else the newest report."""
        said = list(self.turns.values())
        for activity in (Activity.STREAMING, Activity.THINKING):
            if activity in said:
                return activity
        return said[-1] if said else Activity.IDLE


class AgentPresence:
    """The presence of one worker's agents. A failure is logged: it never stops a turn.

    The worker is the connection that the members belong to, so workers of one agent do not collide (PRE-5), and a
    worker that dies leaves with its lease (PRE-3).
    """

    def __init__(self, store: PresenceStore, worker_id: str, lease_ms: int) -> None:
        name = worker_id.replace(":", "-").replace(" ", "-")[:128]
        self._store = store
        self._holder = Holder(name, name, name, MIN_REMAIN_MS)
        self._lease_s = lease_ms / 1000
        self._members: dict[tuple[str, str], _Member] = {}
        self._numbers = itertools.count()
        self._chores: set[asyncio.Task[None]] = set()

    async def show(self, session: str, client_id: str, turn_id: str, activity: str) -> None:
        """A turn's agent changed its activity; published before anything it writes from here on (PRE-4)."""
        member = self._members.setdefault((session, client_id), _Member())
        member.turns[turn_id] = activity
        await self._notify(session, client_id, member)

    async def done(self, session: str, client_id: str, turn_id: str) -> None:
        """A turn is over here."""
        member = self._members.get((session, client_id))
        if member is None or member.turns.pop(turn_id, None) is None:
            return
        await self._notify(session, client_id, member)
        if not member.turns:
            loop = asyncio.get_running_loop()
            member.leaving = loop.call_later(LINGER_S, self._leave_now, session, client_id)

    async def keep(self) -> None:
        """Renew the worker's lease on its members until cancelled."""
        while True:
            if self._members:
                await self._quietly(self._renew())
            await asyncio.sleep(self._lease_s / 3)

    async def close(self) -> None:
        """Leave everywhere."""
        for member in self._members.values():
            if member.leaving is not None:
                member.leaving.cancel()
        if self._members:
            self._members.clear()
            await self._quietly(self._leave_all())
        await asyncio.gather(*self._chores)

    async def _notify(self, session: str, client_id: str, member: _Member) -> None:
        if member.leaving is not None:
            member.leaving.cancel()
            member.leaving = None
        summary = member.summary()
        if member.shown == summary:
            return
        action = PresenceAction.ENTER if member.shown is None else PresenceAction.UPDATE
        member.shown = summary
        await self._quietly(self._change(session, client_id, action, summary))

    async def _change(
        self, session: str, client_id: str, action: PresenceAction, summary: str | None
    ) -> None:
        change = PresenceMessage(
            action=action,
            id=f"{self._holder.connection_id}:{next(self._numbers)}:0",
            client_id=client_id,
            connection_id=self._holder.connection_id,
            data=None if summary is None else to_text({"status": summary}),
            encoding=None if summary is None else "json",
        )
        await self._store.change(session, self._holder, [change])

    def _leave_now(self, session: str, client_id: str) -> None:
        self._members.pop((session, client_id), None)
        work = self._quietly(self._change(session, client_id, PresenceAction.LEAVE, None))
        chore = asyncio.get_running_loop().create_task(work, name="presence-leave")
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    async def _renew(self) -> None:
        if await self._store.renew(self._holder.node):
            return
        # New, or taken for dead: members that have left by now enter again with their next change.
        if not await self._store.claim(self._holder):
            for member in self._members.values():
                member.shown = None

    async def _leave_all(self) -> None:
        await self._store.leave_all(self._holder)
        await self._store.retire(self._holder.node)

    async def _quietly(self, work: Awaitable[None]) -> None:
        try:
            await work
        except TransportError as error:
            logger.warning("presence.untold worker=%s error=%s", self._holder.node, error)
