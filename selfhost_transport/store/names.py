"""Names made of parts that clients choose: no two lists of parts make the same name (the same as scripts/_names.lua).

A part is escaped as in a URL: `%`, `:`, space and control characters become `%` and two hex digits. What joins parts is
then found in none of them. The ids that SDKs and this service make (UUIDs) stay as they are.
"""

from __future__ import annotations

import re
from typing import Final

_SPECIAL: Final = re.compile(r"[%:\x00-\x20\x7f]")
_ESCAPED: Final = re.compile(r"%([0-9A-F]{2})")


def part(text: str) -> str:
    """A text as a part of a name: without `:`, space and control characters."""
    return _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", text)


def whole(escaped: str) -> str:
    """The text that `part` escaped."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), escaped)


def joined(*parts: str) -> str:
    """One name for several parts, as for a receipt."""
    return ":".join(map(part, parts))


def pair(first: str, last: str) -> str:
    """A name of two parts, as a member of a sorted set or a field of a hash."""
    return f"{part(first)} {last}"


def split_pair(name: str) -> tuple[str, str]:
    """The two parts of a pair."""
    first, _, last = name.partition(" ")
    return whole(first), last


def control_message(payload: bytes) -> list[str]:
    """The words of a message on a bucket's control channel: what happened, then to whom."""
    return [whole(word) for word in payload.decode().split(" ")]
