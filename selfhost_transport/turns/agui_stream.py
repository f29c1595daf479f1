"""A turn as AG-UI events, for one reader: what it was sent, and what it is to be sent next.

Every event of the run has an id, a cursor in the list of the turn's units. The list depends on the log only, so a
stream that continues after a cursor is exact on every gateway, however old the cursor is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.agui_progress import Cursor, OnWire, ReaderProgress, UnitProgress, read_cursor
from selfhost_transport.turns.agui_units import (
    STATE_DELTA,
    STATE_SNAPSHOT,
    AguiKind,
    AguiUnit,
    AguiUnits,
    EventJson,
    event_of,
)

SentEvent: TypeAlias = tuple[str | None, EventJson]
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
    """The events of one run of a turn. Call `feed` or `sync`, and `adopt` after `must_restart`; then `close`."""

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
            progress.unit.event.get("type") in (STATE_SNAPSHOT, STATE_DELTA) for progress in self._reader.sent
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
            progress = self._reader.begin(unit)
            self._reader.note_sent(progress, unit.text, len(unit.chunks))
            if unit.kind is AguiKind.EVENT:
                self._reader.end_event(progress)
            elif unit.closed:
                self._reader.end(progress)

    def sync(self, chunks: Iterable[tuple[str, c.Chunk]]) -> list[SentEvent]:
        """Bring the reader to where the turn is."""
        self._units = AguiUnits(chunks)
        if self._resume is not None:
            cursor, self._resume = self._resume, None
            self.must_restart = self._had_unknown = not self._reader.start_at(cursor, self._units.all)
            if self.must_restart:
                self._reader.open = {}
        else:
            self.must_restart = not self._reader.transfer_to(self._units.all)
        return [] if self.must_restart else self._send(self._units.all)

    def feed(self, codec_message_id: str, chunk: c.Chunk) -> list[SentEvent]:
        """One more chunk, as it arrived."""
        if isinstance(chunk, c.Data) and chunk.transient:
            event = event_of(chunk)
            return [(None, event)] if event is not None else []
        return self._send(self._units.add(codec_message_id, chunk))

    def close(self) -> list[SentEvent]:
        """End everything that is open on the wire."""
        out: list[SentEvent] = []
        for progress in reversed(list(self._reader.open.values())):
            out += self._close(progress)
        return out

    # Sending

    def _send(self, units: Sequence[AguiUnit]) -> list[SentEvent]:
        out: list[SentEvent] = []
        known = {id(progress.unit): progress for progress in self._reader.open.values()}
        for unit in units:
            progress = known.get(id(unit))
            if progress is None and self._is_new(unit):
                progress = self._reader.begin(unit)
                out += self._send_event(progress) if unit.kind is AguiKind.EVENT else self._start(progress)
            if progress is not None and not progress.ended:
                out += self._send_more(progress)
        return out

    def _is_new(self, unit: AguiUnit) -> bool:
        return (
            len(self._reader.sent) < len(self._units.all) and self._units.all[len(self._reader.sent)] is unit
        )

    def _send_event(self, progress: UnitProgress) -> list[SentEvent]:
        is_shown = self._reader.end_event(progress)
        return [(self._reader.cursor, progress.unit.event)] if is_shown else []

    def _send_more(self, progress: UnitProgress) -> list[SentEvent]:
        unit, out = progress.unit, list[SentEvent]()
        if progress.on_wire is OnWire.HALF_BEGUN:
            out += self._start(progress)
        if progress.sent_chunks < len(unit.chunks) and (text := "".join(unit.chunks[progress.sent_chunks :])):
            if progress.on_wire is OnWire.CLOSED:
                out += self._start(progress)
            for start in range(0, len(text), _MAX_DELTA):
                self._reader.note_sent(progress, delta := text[start : start + _MAX_DELTA], len(unit.chunks))
                out.append((self._reader.cursor, {**_named(unit, "CONTENT"), "delta": delta}))
        if unit.closed:
            out += self._close(progress, ends=True)
        return out

    def _start(self, progress: UnitProgress) -> list[SentEvent]:
        """Begin a unit on the wire, or begin it again."""
        unit, out = progress.unit, list[SentEvent]()
        for other in list(self._reader.open.values()):
            if other is not progress and other.unit.id == unit.id and other.on_wire is not OnWire.CLOSED:
                # Two texts of one message: it is written by one at a time.
                out += self._close(other)
        if unit.kind is AguiKind.STEP:
            progress.on_wire = OnWire.OPEN
            return [*out, (self._reader.cursor, {"type": "STEP_STARTED", "stepName": unit.id})]
        if unit.kind is AguiKind.REASONING and progress.on_wire is not OnWire.HALF_BEGUN:
            progress.on_wire = OnWire.HALF_BEGUN
            out.append((self._reader.cursor, {"type": "REASONING_START", "messageId": unit.id}))
        progress.on_wire = OnWire.OPEN
        return [*out, (self._reader.cursor, _start_event(unit))]

    def _close(self, progress: UnitProgress, *, ends: bool = False) -> list[SentEvent]:
        unit, out = progress.unit, list[SentEvent]()
        last: EventJson | None = None
        if progress.on_wire is OnWire.HALF_BEGUN:
            out += self._start(progress)
        if unit.kind is AguiKind.STEP:
            last = (
                {"type": "STEP_FINISHED", "stepName": unit.id}
                if progress.on_wire is not OnWire.CLOSED
                else None
            )
        elif unit.kind is AguiKind.REASONING:
            if progress.on_wire is OnWire.OPEN:
                progress.on_wire = OnWire.HALF_ENDED
                out.append((self._reader.cursor, _named(unit, "END")))
            if progress.on_wire is OnWire.HALF_ENDED:
                last = {"type": "REASONING_END", "messageId": unit.id}
        elif progress.on_wire is OnWire.OPEN:
            last = _named(unit, "END")
        progress.on_wire = OnWire.CLOSED
        if ends:
            self._reader.end(progress)
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
