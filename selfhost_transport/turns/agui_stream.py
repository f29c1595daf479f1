"""A turn as AG-UI events, for one reader: what it was sent, and what it is to be sent next.

Every event of the run has an id, a cursor in the list of the turn's units. The list depends on the log only, so a
stream that continues after a cursor is exact on every gateway, however old the cursor is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.agui_progress import Cursor, ReaderProgress, UnitProgress, read_cursor
from selfhost_transport.turns.agui_units import (
    STATE_DELTA,
    STATE_SNAPSHOT,
    AguiKind,
    AguiUnit,
    AguiUnits,
    EventJson,
    event_of,
)

Sent: TypeAlias = tuple[str | None, EventJson]
"""An event with its cursor; None where a reader that continues gets it again."""

VERSION: Final = "1.0"
_OPENED: Final = {
    AguiKind.TEXT: "TEXT_MESSAGE_",
    AguiKind.CALL: "TOOL_CALL_",
    AguiKind.REASONING: "REASONING_MESSAGE_",
}
_MAX_DELTA: Final = 1_048_576
"""Characters of a text that are sent as one event: clients refuse one of more than 10 MB."""


class AguiStream:
    """The events of one run of a turn. Call `feed` or `sync`, `restart` when they ask for it, then the ending."""

    def __init__(self) -> None:
        self._units = AguiUnits()
        self._reader = ReaderProgress()
        # What the reader said it has, until the units are known.
        self._resume: Cursor | None = None
        self.must_restart = False
        """Whether what the reader has is not what the turn consists of any more: it needs a snapshot."""
        self._had_unknown = False

    @property
    def may_hold_state(self) -> bool:
        """Whether the reader may have been sent a state that was taken back with the rest."""
        return self._had_unknown or any(
            one.unit.event.get("type") in (STATE_SNAPSHOT, STATE_DELTA) for one in self._reader.sent
        )

    @property
    def cursor(self) -> str:
        """Where the reader is."""
        return self._reader.cursor

    def resume(self, cursor: str) -> None:
        """The reader has everything up to a cursor. Raises InvalidArgument."""
        self._resume = read_cursor(cursor)

    def adopt(self, chunks: Iterable[tuple[str, c.Chunk]]) -> None:
        """The reader has all of this already, from a snapshot; messages are begun again when they go on."""
        self._units = AguiUnits(chunks)
        self._reader, self.must_restart = ReaderProgress(), False
        for unit in self._units.all:
            one = self._reader.begin(unit)
            self._reader.note(one, unit.text, len(unit.chunks))
            if unit.kind is AguiKind.EVENT:
                self._reader.end_event(one)
            elif unit.closed:
                self._reader.end(one)

    def sync(self, chunks: Iterable[tuple[str, c.Chunk]]) -> list[Sent]:
        """Bring the reader to where the turn is."""
        self._units = AguiUnits(chunks)
        if self._resume is not None:
            cursor, self._resume = self._resume, None
            self.must_restart = self._had_unknown = not self._reader.place(cursor, self._units.all)
            if self.must_restart:
                self._reader.open = {}
        else:
            self.must_restart = not self._reader.match(self._units.all)
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
        for one in reversed(list(self._reader.open.values())):
            out += self._close(one)
        return out

    # Sending

    def _send(self, units: Sequence[AguiUnit]) -> list[Sent]:
        out: list[Sent] = []
        known = {id(one.unit): one for one in self._reader.open.values()}
        for unit in units:
            one = known.get(id(unit))
            if one is None and self._is_new(unit):
                one = self._reader.begin(unit)
                out += self._send_event(one) if unit.kind is AguiKind.EVENT else self._start(one)
            if one is not None and not one.ended:
                out += self._progress(one)
        return out

    def _is_new(self, unit: AguiUnit) -> bool:
        return (
            len(self._reader.sent) < len(self._units.all) and self._units.all[len(self._reader.sent)] is unit
        )

    def _send_event(self, one: UnitProgress) -> list[Sent]:
        is_shown = self._reader.end_event(one)
        return [(self._reader.cursor, one.unit.event)] if is_shown else []

    def _progress(self, one: UnitProgress) -> list[Sent]:
        unit, out = one.unit, list[Sent]()
        if one.flag == "s":
            out += self._start(one)
        if one.chunks < len(unit.chunks) and (text := "".join(unit.chunks[one.chunks :])):
            if one.flag == "c":
                out += self._start(one)
            for at in range(0, len(text), _MAX_DELTA):
                self._reader.note(one, delta := text[at : at + _MAX_DELTA], len(unit.chunks))
                out.append((self._reader.cursor, {**_named(unit, "CONTENT"), "delta": delta}))
        if unit.closed:
            out += self._close(one, ends=True)
        return out

    def _start(self, one: UnitProgress) -> list[Sent]:
        """Begin a unit on the wire, or begin it again."""
        unit, out = one.unit, list[Sent]()
        for other in list(self._reader.open.values()):
            if other is not one and other.unit.id == unit.id and other.flag != "c":
                # Two texts of one message: it is written by one at a time.
                out += self._close(other)
        if unit.kind is AguiKind.STEP:
            one.flag = ""
            return [*out, (self._reader.cursor, {"type": "STEP_STARTED", "stepName": unit.id})]
        if unit.kind is AguiKind.REASONING and one.flag != "s":
            one.flag = "s"
            out.append((self._reader.cursor, {"type": "REASONING_START", "messageId": unit.id}))
        one.flag = ""
        return [*out, (self._reader.cursor, _start_event(unit))]

    def _close(self, one: UnitProgress, *, ends: bool = False) -> list[Sent]:
        unit, out = one.unit, list[Sent]()
        last: EventJson | None = None
        if one.flag == "s":
            out += self._start(one)
        if unit.kind is AguiKind.STEP:
            last = {"type": "STEP_FINISHED", "stepName": unit.id} if one.flag != "c" else None
        elif unit.kind is AguiKind.REASONING:
            if one.flag == "":
                one.flag = "e"
                out.append((self._reader.cursor, _named(unit, "END")))
            if one.flag == "e":
                last = {"type": "REASONING_END", "messageId": unit.id}
        elif one.flag == "":
            last = _named(unit, "END")
        one.flag = "c"
        if ends:
            self._reader.end(one)
        return out if last is None else [*out, (self._reader.cursor, last)]


def _named(unit: AguiUnit, what: str) -> EventJson:
    if unit.kind is AguiKind.CALL:
        return {"type": f"TOOL_CALL_{'ARGS' if what == 'CONTENT' else what}", "toolCallId": unit.id}
    return {"type": f"{_OPENED[unit.kind]}{what}", "messageId": unit.id}


def _start_event(unit: AguiUnit) -> EventJson:
    event = _named(unit, "START")
    if unit.kind is AguiKind.CALL:
        return {**event, "toolCallName": unit.name, "parentMessageId": unit.codec_message_id}
    return {**event, "role": "reasoning" if unit.kind is AguiKind.REASONING else "assistant"}
