"""A turn as AG-UI events, for one reader: what it was sent, and what it is to be sent next.

Every event of the run has an id, a cursor in the list of the turn's units. The list depends on the log only, so a
stream that continues after a cursor is exact on every gateway, however old the cursor is.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.agui_units import (
    STATE_DELTA,
    STATE_SNAPSHOT,
    STEP_FINISHED,
    EventJson,
    Kind,
    Unit,
    Units,
    event_of,
)

Sent: TypeAlias = tuple[str | None, EventJson]
"""An event with its cursor; None where a reader that continues gets it again."""

VERSION: Final = "1.0"
_OPENED: Final = {Kind.TEXT: "TEXT_MESSAGE_", Kind.CALL: "TOOL_CALL_", Kind.REASONING: "REASONING_MESSAGE_"}
_CURSOR: Final = re.compile(r"(?:[^/]*/)?(\d{1,9})((?:\.\d{1,9}:\d{1,12}[sec]?)*)~([0-9a-f]{1,8})[s$]?")
_MODULUS: Final = 2**32
_MAX_DELTA: Final = 1_048_576
"""Characters of a text that are sent as one event: clients refuse one of more than 10 MB."""


@dataclass(slots=True)
class _Progress:
    """What the reader has of one unit."""

    unit: Unit
    # Checksum of the unit and the text that was sent of it.
    checksum: int
    chars: int = 0
    # How many of the unit's chunks that is.
    chunks: int = 0
    # On the wire: `s` begun in part, `` open, `e` ended in part, `c` closed, though the unit itself is not.
    flag: str = "c"
    ended: bool = False


@dataclass(slots=True)
class _Cursor:
    """The place a reader stopped at."""

    count: int = 0
    open: dict[int, tuple[int, str]] = field(default_factory=dict)
    checksum: int = 0


def read_cursor(text: str) -> _Cursor:
    """Read the id of an event. Raises InvalidArgument."""
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise InvalidArgument("Last-Event-ID is not the id of an event of this stream")
    places = {}
    for item in found[2].split(".")[1:]:
        number, _, rest = item.partition(":")
        flag = rest[-1] if rest[-1] in "sec" else ""
        places[int(number)] = int(rest.removesuffix(flag)), flag
    return _Cursor(int(found[1]), places, int(found[3], 16))


class AguiStream:
    """The events of one run of a turn. Call `feed` or `sync`, `restart` when they ask for it, then the ending."""

    def __init__(self) -> None:
        self._units = Units()
        self._sent: list[_Progress] = []
        # Begun and not ended, by their place.
        self._open: dict[int, _Progress] = {}
        self._checksum = 0
        # What the reader said it has, until the units are known.
        self._resume: _Cursor | None = None
        self.must_restart = False
        """Whether what the reader has is not what the turn consists of any more: it needs a snapshot."""
        self._had_unknown = False

    @property
    def may_hold_state(self) -> bool:
        """Whether the reader may have been sent a state that was taken back with the rest."""
        return self._had_unknown or any(
            one.unit.event.get("type") in (STATE_SNAPSHOT, STATE_DELTA) for one in self._sent
        )

    @property
    def cursor(self) -> str:
        """Where the reader is."""
        places = "".join(f".{number}:{one.chars}{one.flag}" for number, one in self._open.items())
        return f"{len(self._sent)}{places}~{self._checksum:x}"

    def resume(self, cursor: str) -> None:
        """The reader has everything up to a cursor. Raises InvalidArgument."""
        self._resume = read_cursor(cursor)

    def adopt(self, chunks: Iterable[tuple[str, c.Chunk]]) -> None:
        """The reader has all of this already, from a snapshot; messages are begun again when they go on."""
        self._units = Units(chunks)
        self._sent, self._open, self._checksum, self.must_restart = [], {}, 0, False
        for unit in self._units.all:
            one = self._begin(unit)
            self._note(one, unit.text, len(unit.chunks))
            if unit.kind is Kind.EVENT:
                self._end_event(one)
            elif unit.closed:
                self._end(one)

    def sync(self, chunks: Iterable[tuple[str, c.Chunk]]) -> list[Sent]:
        """Bring the reader to where the turn is."""
        self._units = Units(chunks)
        if self._resume is not None:
            cursor, self._resume = self._resume, None
            self.must_restart = self._had_unknown = not self._place(cursor)
            if self.must_restart:
                self._open = {}
        else:
            self.must_restart = not self._match()
        return [] if self.must_restart else self._send(self._units.all)

    def feed(self, codec_message_id: str, chunk: c.Chunk) -> list[Sent]:
        """One more chunk, as it arrived."""
        if isinstance(chunk, c.Data) and chunk.transient:
            event = event_of(chunk)
            return [(None, event)] if event is not None else []
        return self._send(self._units.add(codec_message_id, chunk))

    def close(self) -> list[Sent]:
        """End everything that is open on the wire."""
        out: list[Sent] = []
        for one in reversed(list(self._open.values())):
            out += self._close(one)
        return out

    # What a reader has

    def _begin(self, unit: Unit) -> _Progress:
        one = _Progress(unit, unit.checksum)
        self._sent.append(one)
        self._open[len(self._sent) - 1] = one
        self._checksum = (self._checksum + len(self._sent) * one.checksum) % _MODULUS
        return one

    def _note(self, one: _Progress, text: str, chunks: int) -> None:
        place = self._place_of(one)
        before = one.checksum
        one.checksum = zlib.crc32(text.encode("utf-8", "surrogatepass"), before)
        one.chars, one.chunks = one.chars + len(text), chunks
        self._checksum = (self._checksum + (place + 1) * (one.checksum - before)) % _MODULUS

    def _place_of(self, one: _Progress) -> int:
        return next(number for number, other in self._open.items() if other is one)

    def _end(self, one: _Progress) -> None:
        one.ended = True
        del self._open[self._place_of(one)]

    def _place(self, cursor: _Cursor) -> bool:
        """Take the reader to be at a cursor; False when the turn says something else up to there."""
        units = self._units.all
        if cursor.count > len(units):
            return False
        for number, unit in enumerate(units[: cursor.count]):
            one = self._begin(unit)
            chars, one.flag = cursor.open.get(number, (len(unit.text), "c"))
            text = unit.text[:chars]
            unit.chunks = [text, unit.text[chars:]]
            self._note(one, text, 1)
            if number not in cursor.open:
                self._end(one)
        return self._checksum == cursor.checksum

    def _match(self) -> bool:
        """Take over what was sent to the units that are there now; False when they say something else."""
        units = self._units.all
        if len(units) < len(self._sent):
            return False
        for one, unit in zip(self._sent, units, strict=False):
            text, had = unit.text, one.unit.text[: one.chars]
            if unit.checksum != one.unit.checksum or not text.startswith(had):
                return False
            unit.chunks = [had, text[one.chars :]]
            one.unit, one.chunks = unit, 1
        return True

    # Sending

    def _send(self, units: Sequence[Unit]) -> list[Sent]:
        out: list[Sent] = []
        known = {id(one.unit): one for one in self._open.values()}
        for unit in units:
            one = known.get(id(unit))
            if one is None and self._is_new(unit):
                one = self._begin(unit)
                out += self._send_event(one) if unit.kind is Kind.EVENT else self._start(one)
            if one is not None and not one.ended:
                out += self._progress(one)
        return out

    def _is_new(self, unit: Unit) -> bool:
        return len(self._sent) < len(self._units.all) and self._units.all[len(self._sent)] is unit

    def _send_event(self, one: _Progress) -> list[Sent]:
        is_shown = self._end_event(one)
        return [(self.cursor, one.unit.event)] if is_shown else []

    def _end_event(self, one: _Progress) -> bool:
        """Take a single event as sent; False for the end of a step that is not open on the wire."""
        self._end(one)
        if one.unit.event.get("type") != STEP_FINISHED:
            return True
        step = next((other for other in self._open.values() if other.unit.id == one.unit.id), None)
        if step is None:
            return False
        self._end(step)
        return step.flag != "c"

    def _progress(self, one: _Progress) -> list[Sent]:
        unit, out = one.unit, list[Sent]()
        if one.flag == "s":
            out += self._start(one)
        if one.chunks < len(unit.chunks) and (text := "".join(unit.chunks[one.chunks :])):
            if one.flag == "c":
                out += self._start(one)
            for at in range(0, len(text), _MAX_DELTA):
                self._note(one, delta := text[at : at + _MAX_DELTA], len(unit.chunks))
                out.append((self.cursor, {**_named(unit, "CONTENT"), "delta": delta}))
        if unit.closed:
            out += self._close(one, ends=True)
        return out

    def _start(self, one: _Progress) -> list[Sent]:
        """Begin a unit on the wire, or begin it again."""
        unit, out = one.unit, list[Sent]()
        for other in list(self._open.values()):
            if other is not one and other.unit.id == unit.id and other.flag != "c":
                # Two texts of one message: it is written by one at a time.
                out += self._close(other)
        if unit.kind is Kind.STEP:
            one.flag = ""
            return [*out, (self.cursor, {"type": "STEP_STARTED", "stepName": unit.id})]
        if unit.kind is Kind.REASONING and one.flag != "s":
            one.flag = "s"
            out.append((self.cursor, {"type": "REASONING_START", "messageId": unit.id}))
        one.flag = ""
        return [*out, (self.cursor, _start_event(unit))]

    def _close(self, one: _Progress, *, ends: bool = False) -> list[Sent]:
        unit, out = one.unit, list[Sent]()
        last: EventJson | None = None
        if one.flag == "s":
            out += self._start(one)
        if unit.kind is Kind.STEP:
            last = {"type": "STEP_FINISHED", "stepName": unit.id} if one.flag != "c" else None
        elif unit.kind is Kind.REASONING:
            if one.flag == "":
                one.flag = "e"
                out.append((self.cursor, _named(unit, "END")))
            if one.flag == "e":
                last = {"type": "REASONING_END", "messageId": unit.id}
        elif one.flag == "":
            last = _named(unit, "END")
        one.flag = "c"
        if ends:
            self._end(one)
        return out if last is None else [*out, (self.cursor, last)]


def _named(unit: Unit, what: str) -> EventJson:
    if unit.kind is Kind.CALL:
        return {"type": f"TOOL_CALL_{'ARGS' if what == 'CONTENT' else what}", "toolCallId": unit.id}
    return {"type": f"{_OPENED[unit.kind]}{what}", "messageId": unit.id}


def _start_event(unit: Unit) -> EventJson:
    event = _named(unit, "START")
    if unit.kind is Kind.CALL:
        return {**event, "toolCallName": unit.name, "parentMessageId": unit.codec_message_id}
    return {**event, "role": "reasoning" if unit.kind is Kind.REASONING else "assistant"}
