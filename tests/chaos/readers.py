"""What a reader was given, entry by entry, against what the log holds: a repair at the end hides nothing here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from selfhost_transport import ClientTransport
from selfhost_transport.client.session.events import Entry as Reported
from selfhost_transport.store.entries import Appended, Created, Entry, Ref, Replaced
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message
from tests.worker.session import run_of


@dataclass(slots=True)
class Copy:
    """One message as a reader has it."""

    text: str
    status: str | None = None


@dataclass(slots=True)
class Reader:
    """Follows one client. After a stated discontinuity it begins anew: what came before is not compared."""

    copies: dict[str, Copy] = field(default_factory=dict)
    repeated: int = 0
    breaks: int = 0
    first: str = ""
    # When it learned of each turn's end, seconds since the epoch.
    ends: dict[str, float] = field(default_factory=dict)

    def follow(self, client: ClientTransport) -> None:
        """Take everything the client receives from now on."""
        client.on("entry", self._take)
        client.on("discontinuity", lambda _: self._begin_anew())

    def _begin_anew(self) -> None:
        self.breaks += 1
        self.copies.clear()
        self.first = ""

    def _take(self, reported: Reported) -> None:
        message = reported.message
        if message.serial is None:
            return
        if message.name == h.AI_RUN_END:
            self.ends.setdefault(run_of(message) or "", time.time())
        copy = self.copies.get(message.serial)
        if message.action in (None, MessageAction.CREATE):
            self.repeated += copy is not None
            self.first = self.first or message.serial
            self.copies[message.serial] = Copy(_text(message), _status(message))
        elif copy is not None:
            whole = message.action is not MessageAction.APPEND
            copy.text = _text(message) if whole else copy.text + _text(message)
            copy.status = _status(message) or copy.status

    def compare(self, stored: dict[str, Copy], found: Counter[str]) -> None:
        """Count where this reader has something else than the log."""
        found["entries given twice"] += self.repeated
        found["discontinuities reported"] += self.breaks
        if not self.first:
            return
        for serial, copy in stored.items():
            if serial < self.first:
                continue
            mine = self.copies.get(serial)
            found["messages a reader never got"] += mine is None
            if mine is not None:
                found["messages a reader has otherwise"] += mine.text != copy.text
                found["ends of texts a reader never got"] += (
                    mine.text == copy.text and mine.status != copy.status
                )


def stored_messages(entries: Iterable[Entry], epoch: str) -> dict[str, Copy]:
    """The messages of a log as they are in the end, by serial."""
    found: dict[str, Copy] = {}
    for entry in entries:
        if isinstance(entry, Created) and not entry.ephemeral:
            for index, message in enumerate(entry.messages):
                found[Ref(entry.position, index).serial(epoch)] = Copy(_text(message), _status(message))
        elif isinstance(entry, Appended):
            copy = found.get(entry.ref.serial(epoch))
            if copy is not None:
                copy.text += entry.data if isinstance(entry.data, str) else ""
                copy.status = _status(Message(extras=entry.extras)) or copy.status
        elif isinstance(entry, Replaced):
            found[entry.ref.serial(epoch)] = Copy(_text(entry.message), _status(entry.message))
    return found


def _text(message: Message) -> str:
    return message.data if isinstance(message.data, str) else ""


def _status(message: Message) -> str | None:
    headers = h.read_headers(message) if message.extras else None
    return headers.status if headers is not None else None
