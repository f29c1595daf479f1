"""Loads the Lua files: one atomic state change each.

A line `--@include name` is replaced by that file, so that shared steps exist once; the first time, should files
include the same. A script that publishes puts `DATABASE` behind the name of a channel
(`redis_io/databases.py`). A script knows its own digest; the connection loads it into Redis when it is missing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from selfhost_transport.redis_io.databases import SCRIPT_BEGINS

_FOLDER = Path(__file__).parent / "scripts"
_CALLED = re.compile(r"redis\.call\('([A-Z]+)'")
_READ = frozenset(
    {
        "EXISTS",
        "GET",
        "HGET",
        "HGETALL",
        "HKEYS",
        "HLEN",
        "HMGET",
        "LLEN",
        "LRANGE",
        "PTTL",
        "STRLEN",
        "TIME",
        "XLEN",
    }
    | {"XRANGE", "XREVRANGE", "ZCARD", "ZRANGE", "ZRANGEBYSCORE", "ZSCORE"}
)
_INCLUDE = re.compile(r"^--@include (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the SHA-1 digest under which Redis keeps it."""

    name: str
    source: str
    digest: str
    reads: bool


@cache
def load(name: str) -> Script:
    """The script `scripts/<name>.lua` with its includes."""
    source = _with_includes(f"{name}.lua", set())
    if "DATABASE" in source:
        source = SCRIPT_BEGINS + source
    return Script(
        name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(), _only_reads(source)
    )


def _only_reads(source: str) -> bool:
    return set(_CALLED.findall(source)) <= _READ


def everything() -> list[Script]:
    """All scripts."""
    return [load(path.stem) for path in sorted(_FOLDER.glob("[!_]*.lua"))]


def _with_includes(file_name: str, included: set[str]) -> str:
    included.add(file_name)

    def read(found: re.Match[str]) -> str:
        return "" if found[1] in included else _with_includes(found[1], included)

    return _INCLUDE.sub(read, (_FOLDER / file_name).read_text())
