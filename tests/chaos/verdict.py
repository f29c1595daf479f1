"""What must hold whatever happened: read from the raw log while it is written, and from late joiners."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from selfhost_transport.errors import ContinuityLost, TransportError
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import Appended, Created, Entry, Ref
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position
from tests.worker.session import header, run_of


@dataclass(slots=True)
class Witness:
    """Keeps the whole log of one session, which the service itself trims."""

    store: SessionStore
    session: str
    entries: list[Entry] = field(default_factory=list)
    holes: int = 0

    async def look(self) -> None:
        """Read what is new. Redis may be away."""
        while True:
            after = self.entries[-1].position if self.entries else Position.ZERO
            try:
                found = await self.store.read_after(self.session, after, 5000)
            except ContinuityLost:
                self.holes += 1
                return
            except TransportError:
                return
            self.entries.extend(found)
            if len(found) < 5000:
                return


async def watch(witnesses: Iterable[Witness], stop: asyncio.Event) -> None:
    """Look at all sessions several times within the window of their logs."""
    witnesses = list(witnesses)
    while not stop.is_set():
        for witness in witnesses:
            await witness.look()
        await asyncio.sleep(1.0)


def make_witness(redis: RedisConnection, prefix: str, session: str) -> Witness:
    """A witness of a session."""
    return Witness(SessionStore(redis, Keyspace(prefix)), session)


def judge(witness: Witness, accepted: Iterable[str]) -> Counter[str]:
    """Breaches of the promises in one session's log, by name; and how much there was to breach."""
    found: Counter[str] = Counter()
    record = _Record()
    for entry in witness.entries:
        record.take(entry, found)
    turns = set(accepted)
    for turn in turns:
        terminals = record.terminals[turn]
        found["turns"] += 1
        found[f"ended {record.reason.get(turn, 'never')}"] += 1
        found["turns without a terminal"] += terminals == 0
        found["turns with several terminals"] += terminals > 1
    found["terminals of turns nobody accepted"] += sum(turn not in turns for turn in record.terminals)
    found["holes in the witness"] += witness.holes
    return found


@dataclass(slots=True)
class _Record:
    """What the log has said so far."""

    terminals: Counter[str] = field(default_factory=Counter)
    reason: dict[str, str] = field(default_factory=dict)
    # The newest attempt of each turn: the position of its step-start.
    attempt: dict[str, Position] = field(default_factory=dict)
    outputs: dict[Ref, Message] = field(default_factory=dict)
    last: Position = Position.ZERO

    def take(self, entry: Entry, found: Counter[str]) -> None:
        found["entries"] += 1
        found["entries out of order"] += entry.position <= self.last
        self.last = entry.position
        if isinstance(entry, Created):
            for index, message in enumerate(entry.messages):
                self._created(entry.position, index, message, found)
        elif isinstance(entry, Appended) and entry.ref in self.outputs and entry.data:
            found["pieces"] += 1
            self._content(self.outputs[entry.ref], found)

    def _created(self, position: Position, index: int, message: Message, found: Counter[str]) -> None:
        turn = run_of(message)
        if turn is None:
            return
        match message.name:
            case h.AI_STEP_START:
                found["attempts"] += 1
                self.attempt[turn] = position
                found["attempts after the terminal"] += self.terminals[turn] > 0
            case h.AI_OUTPUT:
                self.outputs[Ref(position, index)] = message
                self._content(message, found)
            case h.AI_RUN_END:
                self.terminals[turn] += 1
                self.reason[turn] = str(header(message, h.RUN_REASON))

    def _content(self, message: Message, found: Counter[str]) -> None:
        turn = str(run_of(message))
        found["content after the terminal"] += self.terminals[turn] > 0
        attempt = header(message, h.STEP_START_SERIAL)
        if attempt is not None:
            found["content by a stale writer"] += parse_position(attempt)[0] < self.attempt[turn]


BREACHES = (
    "entries out of order", "content after the terminal", "content by a stale writer", "attempts after the terminal",
    "turns without a terminal", "turns with several terminals", "terminals of turns nobody accepted",
    "holes in the witness", "texts that are wrong", "texts of somebody else", "watchers that saw something else",
)  # fmt: skip
"""What must be zero."""
