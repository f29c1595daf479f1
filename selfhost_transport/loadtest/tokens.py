"""The numbered tokens of the scripted model: `0 `, `1 `, `2 ` …."""

from __future__ import annotations

_GROWTH = 4096


class NumberedText:
    """The text of a turn of any length, and where a chunk stands in it. Grows as needed, shared by all checks."""

    def __init__(self) -> None:
        # As far as it was needed until now.
        self.text = ""
        self._count = 0

    def matches(self, chunk: str, offset: int) -> bool:
        """Whether `chunk` is exactly what follows at this offset, in characters."""
        end = offset + len(chunk)
        if end > len(self.text):
            self._grow(end)
        return self.text.startswith(chunk, offset)

    def length(self, tokens: int) -> int:
        """Characters of the first `tokens` tokens."""
        length, first, digits = 0, 0, 1
        while first < tokens:
            last = min(tokens, 10**digits)
            length += (last - first) * (digits + 1)
            first, digits = last, digits + 1
        return length

    def _grow(self, length: int) -> None:
        while len(self.text) < length:
            more = range(self._count, self._count + max(_GROWTH, self._count // 2))
            self.text += "".join(f"{number} " for number in more)
            self._count = more.stop


def first_number(chunk: str) -> int | None:
    """The number of a chunk's first token; None if it does not begin with one."""
    head = chunk.split(" ", 1)[0]
    return int(head) if head.isdecimal() else None
