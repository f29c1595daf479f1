"""What became of cancels that an agent's hook was asked about (CAN-7, CAN-8)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass, field

from gateway.fanout.hub import SessionHub
from selfhost_transport.store.entries import Created, Entry
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_pauses import LONGEST_HOOK_GRACE_S
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position

MAX_WAIT_S = LONGEST_HOOK_GRACE_S + 2.0
"""How long the answer to a cancel waits for verdicts; longer than any hook may take."""
_PAGE = 1000
_LOOK_S = 0.05


@dataclass(slots=True)
class CancelOutcome:
    """`sealed_at`: from where the content of the cancelled turns is refused; ZERO if none was cancelled.

    `denied`: turns that continue, and what their agents say. Turns in neither are still undecided. `hook_failed`: those
    of the cancelled whose agent's hook raised or was silent.
    """

    sealed_at: Position = Position.ZERO
    cancelled: set[str] = field(default_factory=set)
    denied: dict[str, str] = field(default_factory=dict)
    hook_failed: set[str] = field(default_factory=set)

    def note(self, entry: Entry, asked: Collection[str]) -> None:
        """Take one entry of the session; the first verdict on a turn counts."""
        if not isinstance(entry, Created):
            return
        for message in entry.messages:
            headers = h.read_headers(message)
            turn = headers.run_id if headers is not None else None
            if turn is None or turn not in asked:
                continue
            if turn not in self.cancelled and turn not in self.denied:
                self._take(entry.position, turn, message)

    def _take(self, position: Position, turn: str, message: Message) -> None:
        headers = h.read_headers(message)
        if message.name == h.AI_CANCEL_DENIED:
            self.denied[turn] = (headers and headers.get(h.ERROR_MESSAGE)) or "the agent refused the cancel"
        elif message.name in (h.AI_CANCEL_ALLOWED, h.AI_RUN_END):
            self.cancelled.add(turn)
            if message.name == h.AI_CANCEL_ALLOWED and headers is not None and headers.get(h.ERROR_CODE):
                self.hook_failed.add(turn)
            self.sealed_at = max(self.sealed_at, position)

    def are_complete(self, asked: Collection[str]) -> bool:
        """Whether every turn has its verdict."""
        return not self.undecided(asked)

    def undecided(self, asked: Collection[str]) -> tuple[str, ...]:
        """The turns without a verdict: their agents may still write."""
        return tuple(turn for turn in asked if turn not in self.cancelled and turn not in self.denied)


class CancelVoting:
    """Waits for the verdicts of agents."""

    def __init__(self, hub: SessionHub, sessions: SessionStore, *, wait_s: float = MAX_WAIT_S) -> None:
        self._hub = hub
        self._sessions = sessions
        self._wait_s = wait_s

    async def outcome(self, session: str, after: Position, asked: Collection[str]) -> CancelOutcome:
        """The verdicts on a cancel at position `after`, as far as they are known within `wait_s`."""
        found = CancelOutcome()
        with contextlib.suppress(
            TimeoutError
        ):  # an undecided cancel is decided later, and announced in the session
            async with self._hub.watch(session) as feed, asyncio.timeout(self._wait_s):
                while not found.are_complete(asked):
                    entries = await self._sessions.read_after(session, after, _PAGE)
                    for entry in entries:
                        found.note(entry, asked)
                        after = entry.position
                    if not entries:
                        await feed.until_fanned_out(Position(after.ms, after.counter + 1))
                        await asyncio.sleep(_LOOK_S)  # where the log has not what the feed has seen
        return found
