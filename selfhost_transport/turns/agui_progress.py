"""What one AG-UI reader of a turn has, unit by unit, and the cursor that says so.

A cursor counts the units that were begun, says how much was sent of those that are open, and has a checksum over all that was
sent: a gateway that has never seen the reader can tell whether the turn still says the same up to there.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns.agui_units import STEP_FINISHED, AguiUnit

_CURSOR: Final = re.compile(r"(?:[^/]*/)?(\d{1,9})((?:\.\d{1,9}:\d{1,12}[sec]?)*)~([0-9a-f]{1,8})[s$]?")
_MODULUS: Final = 2**32


class OnWire(StrEnum):
    """How a unit that has not ended stands on the wire; the values are written in cursors.

    A reasoning begins and ends with two events, and a reader may have stopped between them.
    """

    HALF_BEGUN = "s"
    OPEN = ""
    HALF_ENDED = "e"
    CLOSED = "c"


@dataclass(slots=True)
class UnitProgress:
    """What the reader has of one unit."""

    unit: AguiUnit
    # Checksum of the unit and the text that was sent of it.
    checksum: int
    # How much of its text was sent: characters, and chunks of the unit.
    sent_chars: int = 0
    sent_chunks: int = 0
    on_wire: OnWire = OnWire.CLOSED
    ended: bool = False


@dataclass(slots=True)
class Cursor:
    """The place a reader stopped at. `open`: of units that had not ended, by index: characters that were sent."""

    begun: int = 0
    open: dict[int, tuple[int, OnWire]] = field(default_factory=dict)
    checksum: int = 0


def read_cursor(text: str) -> Cursor:
    """Read the id of an event. Raises InvalidArgument."""
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise InvalidArgument("Last-Event-ID is not the id of an event of this stream")
    still_open: dict[int, tuple[int, OnWire]] = {}
    for item in found[2].split(".")[1:]:
        index, _, rest = item.partition(":")
        on_wire = OnWire(rest[-1] if rest[-1] in "sec" else "")
        still_open[int(index)] = int(rest.removesuffix(on_wire)), on_wire
    return Cursor(int(found[1]), still_open, int(found[3], 16))


class ReaderProgress:
    """The units that a reader was sent, all or in part."""

    def __init__(self) -> None:
        self.sent: list[UnitProgress] = []
        # Begun and not ended, by their index.
        self.open: dict[int, UnitProgress] = {}
        self._checksum = 0

    @property
    def cursor(self) -> str:
        """Where the reader is."""
        still_open = "".join(
            f".{index}:{progress.sent_chars}{progress.on_wire}" for index, progress in self.open.items()
        )
        return f"{len(self.sent)}{still_open}~{self._checksum:x}"

    def begin(self, unit: AguiUnit) -> UnitProgress:
        """The next unit is begun; nothing of its text is sent yet."""
        progress = UnitProgress(unit, unit.checksum)
        self.sent.append(progress)
        self.open[len(self.sent) - 1] = progress
        self._checksum = (self._checksum + len(self.sent) * progress.checksum) % _MODULUS
        return progress

    def note_sent(self, progress: UnitProgress, text: str, chunks: int) -> None:
        """More of a unit's text is sent, the last of it as far as its first `chunks` chunks."""
        before = progress.checksum
        progress.checksum = zlib.crc32(text.encode("utf-8", "surrogatepass"), before)
        progress.sent_chars, progress.sent_chunks = progress.sent_chars + len(text), chunks
        weight = self._index_of(progress) + 1
        self._checksum = (self._checksum + weight * (progress.checksum - before)) % _MODULUS

    def _index_of(self, progress: UnitProgress) -> int:
        return next(index for index, other in self.open.items() if other is progress)

    def end(self, progress: UnitProgress) -> None:
        """A unit is sent as a whole."""
        progress.ended = True
        del self.open[self._index_of(progress)]

    def end_event(self, progress: UnitProgress) -> bool:
        """Take a single event as sent; False for the end of a step that is not open on the wire."""
        self.end(progress)
        if progress.unit.event.get("type") != STEP_FINISHED:
            return True
        step = next((other for other in self.open.values() if other.unit.id == progress.unit.id), None)
        if step is None:
            return False
        self.end(step)
        return step.on_wire is not OnWire.CLOSED

    def start_at(self, cursor: Cursor, units: Sequence[AguiUnit]) -> bool:
        """The reader has what a cursor says of these units; False when the turn says something else up to there."""
        if cursor.begun > len(units):
            return False
        for index, unit in enumerate(units[: cursor.begun]):
            progress = self.begin(unit)
            chars, progress.on_wire = cursor.open.get(index, (len(unit.text), OnWire.CLOSED))
            text = unit.text[:chars]
            unit.chunks = [text, unit.text[chars:]]
            self.note_sent(progress, text, 1)
            if index not in cursor.open:
                self.end(progress)
        return self._checksum == cursor.checksum

    def transfer_to(self, units: Sequence[AguiUnit]) -> bool:
        """Count what was sent as sent of these units, made anew; False when they say something else."""
        if len(units) < len(self.sent):
            return False
        for progress, unit in zip(self.sent, units, strict=False):
            text, had = unit.text, progress.unit.text[: progress.sent_chars]
            if unit.checksum != progress.unit.checksum or not text.startswith(had):
                return False
            unit.chunks = [had, text[progress.sent_chars :]]
            progress.unit, progress.sent_chunks = unit, 1
        return True
