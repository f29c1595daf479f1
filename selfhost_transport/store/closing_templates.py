"""The closing messages of a turn, packed by filling its ids into a template.

To make and pack the eight messages is a tenth of what a send costs its gateway, and those of two turns differ in names and
ids only. A template is what is packed for names of the same lengths, cut where they stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from selfhost_transport.store.turn_records import ClosingMessages, PackedClosing
from selfhost_transport.turns.context import TurnContext

_NAMES: Final = (
    "turn_id", "invocation_id", "agent_client_id", "step_id", "owner_client_id", "input_client_id",
    "input_codec_message_id", "parent", "output_parent", "fork_of", "msg_regenerate", "step_client_id",
)  # fmt: skip
"""What of a context is a name or an id; of the rest only whether it resumes its turn is in the messages."""
_LOST_ID: Final = len(_NAMES)
_TOKEN: Final = "\2\3"
"""Marks the places of names, with a letter behind it. The packed messages have it nowhere else: of the names only those too
short to hold a mark stand in a template."""
_SHORTEST: Final = len(_TOKEN) + 1
_KEPT: Final = 256

_Lengths: TypeAlias = tuple[int | str | None, ...]
"""For each name how many bytes it has; a short one, which leaves no room for a mark, itself; None for none."""
Make: TypeAlias = Callable[[TurnContext, str], ClosingMessages]
"""From a context and the id of the message that says the output is lost."""


@dataclass(frozen=True, slots=True)
class _Template:
    """`parts` of all entries behind one another: bytes, or the name whose value stands there. `ends` of the entries."""

    parts: tuple[bytes, ...]
    places: tuple[tuple[int, int], ...]
    slices: tuple[tuple[str, slice], ...]

    def filled(self, values: list[bytes]) -> dict[str, bytes]:
        parts = list(self.parts)
        for at, name in self.places:
            parts[at] = values[name]
        whole = b"".join(parts)
        return {field: whole[place] for field, place in self.slices}


def packed_closing(context: TurnContext, lost_id: str, make: Make) -> ClosingMessages | PackedClosing:
    """What `make` gives, packed. As it is where a name is no proper text."""
    names = [getattr(context, name) for name in _NAMES]
    names.append(lost_id)
    try:
        values = [b"" if name is None else name.encode() for name in names]
    except (UnicodeEncodeError, AttributeError):
        return make(context, lost_id)
    lengths = tuple(
        name if name is None or len(value) < _SHORTEST else len(value)
        for name, value in zip(names, values, strict=True)
    )
    template = _template(lengths, context.invocation > 0, make)
    return PackedClosing(template.filled(values), None if context.invocation else context.parent)


@lru_cache(maxsize=_KEPT)
def _template(lengths: _Lengths, resumes: bool, make: Make) -> _Template:
    marks = [
        f"{_TOKEN}{chr(ord('A') + number)}".ljust(length, "-") if isinstance(length, int) else length
        for number, length in enumerate(lengths)
    ]
    names = dict(zip(_NAMES, marks[:_LOST_ID], strict=True))
    context = TurnContext(session="", invocation=int(resumes), **names)  # type: ignore[arg-type]
    packed = make(context, marks[_LOST_ID] or "").fields()
    numbers = {str(mark).encode(): at for at, mark in enumerate(marks) if isinstance(lengths[at], int)}
    cuts = re.compile(b"|".join(map(re.escape, numbers)).join((b"(", b")")))
    parts: list[bytes] = []
    places: list[tuple[int, int]] = []
    slices: list[tuple[str, slice]] = []
    begin = 0
    for field, entry in packed.items():
        for text in cuts.split(entry):
            if text in numbers:
                places.append((len(parts), numbers[text]))
            parts.append(text)
        slices.append((field, slice(begin, begin + len(entry))))
        begin += len(entry)
    return _Template(tuple(parts), tuple(places), tuple(slices))
