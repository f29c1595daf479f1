"""What one AG-UI reader of a turn has, unit by unit, and the cursor that says so.

A cursor counts the units that were begun, says how much was sent of those that are open, and has a checksum over all that was
sent: a gateway that has never seen the reader can tell whether the turn still says the same up to there.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns.agui_units import STEP_FINISHED, AguiUnit

_CURSOR: Final = re.compile(r"(?:[^/]*/)?(\d{1,9})((?:\.\d{1,9}:\d{1,12}[sec]?)*)~([0-9a-f]{1,8})[s$]?")
_MODULUS: Final = 2**32


@dataclass(slots=True)
class UnitProgress:
    """What the reader has of one unit."""

    unit: AguiUnit
    # Checksum of the unit and the text that was sent of it.
    checksum: int
    chars: int = 0
    # How many of the unit's chunks that is.
    chunks: int = 0
    # On the wire: `s` begun in part, `` open, `e` ended in part, `c` closed, though the unit itself is not.
    flag: str = "c"
    ended: bool = False


@dataclass(slots=True)
class Cursor:
    """The place a reader stopped at."""

    count: int = 0
    open: dict[int, tuple[int, str]] = field(default_factory=dict)
    checksum: int = 0


def read_cursor(text: str) -> Cursor:
    """Read the id of an event. Raises InvalidArgument."""
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise InvalidArgument("Last-Event-ID is not the id of an event of this stream")
    places = {}
    for item in found[2].split(".")[1:]:
        number, _, rest = item.partition(":")
        flag = rest[-1] if rest[-1] in "sec" else ""
        places[int(number)] = int(rest.removesuffix(flag)), flag
    return Cursor(int(found[1]), places, int(found[3], 16))


class ReaderProgress:
    """The units that a reader was sent, all or in part."""

    def __init__(self) -> None:
        self.sent: list[UnitProgress] = []
        # Begun and not ended, by their place.
        self.open: dict[int, UnitProgress] = {}
        self._checksum = 0

    @property
    def cursor(self) -> str:
        """Where the reader is."""
        places = "".join(f".{number}:{one.chars}{one.flag}" for number, one in self.open.items())
        return f"{len(self.sent)}{places}~{self._checksum:x}"

    def begin(self, unit: AguiUnit) -> UnitProgress:
        """The next unit is begun; nothing of its text is sent yet."""
        one = UnitProgress(unit, unit.checksum)
        self.sent.append(one)
        self.open[len(self.sent) - 1] = one
        self._checksum = (self._checksum + len(self.sent) * one.checksum) % _MODULUS
        return one

    def note(self, one: UnitProgress, text: str, chunks: int) -> None:
        """More of a unit's text is sent, the last of it as far as its first `chunks` chunks."""
        place = self._place_of(one)
        before = one.checksum
        one.checksum = zlib.crc32(text.encode("utf-8", "surrogatepass"), before)
        one.chars, one.chunks = one.chars + len(text), chunks
        self._checksum = (self._checksum + (place + 1) * (one.checksum - before)) % _MODULUS

    def _place_of(self, one: UnitProgress) -> int:
        return next(number for number, other in self.open.items() if other is one)

    def end(self, one: UnitProgress) -> None:
        """A unit is sent as a whole."""
        one.ended = True
        del self.open[self._place_of(one)]

    def place(self, cursor: Cursor, units: Sequence[AguiUnit]) -> bool:
        """Take the reader to be at a cursor; False when the turn says something else up to there."""
        if cursor.count > len(units):
            return False
        for number, unit in enumerate(units[: cursor.count]):
            one = self.begin(unit)
            chars, one.flag = cursor.open.get(number, (len(unit.text), "c"))
            text = unit.text[:chars]
            unit.chunks = [text, unit.text[chars:]]
            self.note(one, text, 1)
            if number not in cursor.open:
                self.end(one)
        return self._checksum == cursor.checksum

    def match(self, units: Sequence[AguiUnit]) -> bool:
        """Take over what was sent to the units that are there now; False when they say something else."""
        if len(units) < len(self.sent):
            return False
        for one, unit in zip(self.sent, units, strict=False):
            text, had = unit.text, one.unit.text[: one.chars]
            if unit.checksum != one.unit.checksum or not text.startswith(had):
                return False
            unit.chunks = [had, text[one.chars :]]
            one.unit, one.chunks = unit, 1
        return True

    def end_event(self, one: UnitProgress) -> bool:
        """Take a single event as sent; False for the end of a step that is not open on the wire."""
        self.end(one)
        if one.unit.event.get("type") != STEP_FINISHED:
            return True
        step = next((other for other in self.open.values() if other.unit.id == one.unit.id), None)
        if step is None:
            return False
        self.end(step)
        return step.flag != "c"
