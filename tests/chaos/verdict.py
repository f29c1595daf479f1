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
from selfhost_transport.turns.context import turn_id_for
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


def make_witness(redis: RedisConnection, keys: Keyspace, session: str) -> Witness:
    """A witness of a session."""
    return Witness(SessionStore(redis, keys), session)


def judge(
    witness: Witness, accepted: Iterable[str], also: Iterable[str], published: Iterable[str]
) -> Counter[str]:
    """Breaches of the promises in one session's log, by name; and how much there was to breach.

    `accepted`: turns that were acknowledged; `also`: turns that others may have begun; `published`: ids of
    messages that were acknowledged.
    """
    found: Counter[str] = Counter()
    record = _Record(witness.session)
    for entry in witness.entries:
        record.take(entry, found)
    turns = set(accepted)
    for turn in turns:
        found["sends acknowledged and not stored"] += record.asked[turn] == 0
        terminals = record.terminals[turn]
        found["turns"] += 1
        found[f"ended {record.reason.get(turn, 'never')}"] += 1
        found["turns without a terminal"] += terminals == 0
        found["turns with several terminals"] += terminals > 1
    known = turns | set(also)
    found["terminals of turns no one accepted"] += sum(turn not in known for turn in record.terminals)
    found["turns with several terminals"] += sum(
        count > 1 for turn, count in record.terminals.items() if turn not in turns
    )
    found["sends stored twice"] += sum(count > 1 for count in record.asked.values())
    found["messages published"] += len(record.notes)
    found["messages acknowledged and not stored"] += sum(record.notes[name] == 0 for name in published)
    found["messages stored twice"] += sum(count > 1 for count in record.notes.values())
    found["texts left open after the terminal"] += record.left_open()
    found["holes in the witness"] += witness.holes
    return found


@dataclass(slots=True)
class _Record:
    """What the log has said so far."""

    session: str
    terminals: Counter[str] = field(default_factory=Counter)
    reason: dict[str, str] = field(default_factory=dict)
    # The newest attempt of each turn: the position of its step-start.
    attempt: dict[str, Position] = field(default_factory=dict)
    outputs: dict[Ref, Message] = field(default_factory=dict)
    last: Position = Position.ZERO
    # How often each turn was asked for, and each note published.
    asked: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    # Streams that were opened and not closed, and their turns.
    open_texts: dict[Ref, str] = field(default_factory=dict)

    def take(self, entry: Entry, found: Counter[str]) -> None:
        found["entries"] += 1
        found["entries out of order"] += entry.position <= self.last
        self.last = entry.position
        if isinstance(entry, Created):
            for index, message in enumerate(entry.messages):
                self._created(entry.position, index, message, found)
        elif isinstance(entry, Appended):
            if entry.ref in self.outputs and entry.data:
                found["chunks"] += 1
                self._content(self.outputs[entry.ref], found)
            if _is_closed(Message(extras=entry.extras)):
                self.open_texts.pop(entry.ref, None)

    def left_open(self) -> int:
        """Streams of the newest attempts of ended turns that nothing closed."""
        return sum(self.terminals[turn] > 0 for turn in self.open_texts.values())

    def _created(self, position: Position, index: int, message: Message, found: Counter[str]) -> None:
        turn = run_of(message)
        if message.name == "note":
            self.notes[str(message.data)] += 1
        if message.name == h.AI_INPUT and turn is None and index == 0:
            self.asked[turn_id_for(self.session, str(header(message, h.CODEC_MESSAGE_ID)))] += 1
        if turn is None:
            return
        match message.name:
            case h.AI_STEP_START:
                found["attempts"] += 1
                self.attempt[turn] = position
                # What a lost attempt had open is replaced, not closed.
                self.open_texts = {ref: of for ref, of in self.open_texts.items() if of != turn}
                found["attempts after the terminal"] += self.terminals[turn] > 0
            case h.AI_OUTPUT:
                self.outputs[Ref(position, index)] = message
                if header(message, h.STREAM) == "true" and not _is_closed(message):
                    self.open_texts[Ref(position, index)] = turn
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


def _is_closed(message: Message) -> bool:
    headers = h.read_headers(message) if message.extras else None
    return headers is not None and headers.status in (h.COMPLETE, h.CANCELLED)


BREACHES = (
    "entries out of order", "content after the terminal", "content by a stale writer", "attempts after the terminal",
    "turns without a terminal", "turns with several terminals", "terminals of turns no one accepted",
    "holes in the witness", "texts that are wrong", "texts of another", "watchers that saw something else",
    "sends acknowledged and not stored", "sends stored twice", "sends repeated that became two turns",
    "messages acknowledged and not stored", "messages stored twice", "texts left open after the terminal",
    "entries given twice", "messages a reader never got", "messages a reader has otherwise",
    "ends of texts a reader never got", "turns that a reader never saw end", "turns that stay open",
    "turns that were late though nothing was broken", "frames after an acknowledgement that were before it",
    "content after an acknowledged cancel",
)  # fmt: skip
"""What must be zero."""
