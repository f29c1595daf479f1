"""The blocks of the pages, each with a name, and the output that is shown after it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md") if (ROOT / name).exists()),
    *sorted((ROOT / "docs").glob("*.md")),
]
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
OUTPUT = "text"
"""The language of what a block prints; its block follows the code at once."""


@dataclass(frozen=True, slots=True)
class Block:
    """`number` counts the blocks of a page from 1; `shown` is the output under it, None where there is none."""

    page: str
    number: int
    line: int
    language: str
    text: str
    shown: str | None = None

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.page}:{self.line}"


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    """The blocks of code of a page, in order; a block of output belongs to the one before it."""
    text = page.read_text()
    found: list[Block] = []
    end = -1
    for match in _BLOCK.finditer(text):
        line = text[: match.start()].count("\n") + 1
        if match[1] == OUTPUT and found and text[end : match.start()].strip() == "":
            last = found[-1]
            found[-1] = Block(last.page, last.number, last.line, last.language, last.text, match[2])
        else:
            name = str(page.relative_to(ROOT))
            found.append(Block(name, len(found) + 1, line, match[1], match[2]))
        end = match.end()
    return tuple(found)


def all_blocks() -> list[Block]:
    """Every block of every page."""
    return [block for page in PAGES for block in blocks_of(page)]


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The blocks of one page, of one language."""
    return [block for block in blocks_of(ROOT / page) if language in (None, block.language)]


def block(page: str, containing: str) -> Block:
    """The one block of a page that contains a text."""
    (found,) = [one for one in blocks(page) if containing in one.text]
    return found
