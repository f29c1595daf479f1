"""Channels of the numbered databases of one server: pub/sub is shared by all of them, so a name says which one it is of.

Keys of two databases never meet; what one publishes, subscribers of all others get. In any database but 0 the names
of channels end with a line break and the number: a line break is in no session's name. On the way to Redis they are
completed here, and in scripts by the constant that begins them, so that nothing else knows of it.

In a Cluster whose notifications are sharded, scripts publish with SPUBLISH: the same, to the servers of the slot only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

SCRIPT_BEGINS: Final = "local DATABASE, COUNTS_ALL = '', true\n"
"""The first line of a script that publishes; it puts `DATABASE` behind the name of a channel.

`COUNTS_ALL`: whether Redis' answer to a publish counts all who get it. In a Cluster whose notifications are not sharded, it
knows only those of one server.
"""

_PUBLISH: Final = "redis.call('PUBLISH',"
_SHARD_PUBLISH: Final = "redis.call('SPUBLISH',"


class LuaScript(Protocol):
    """The parts of a script that a connection needs."""

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def source(self) -> str: ...  # noqa: D102

    @property
    def reads(self) -> bool:
        """Whether it changes nothing, so that it may be repeated whatever its first outcome."""

    @property
    def names_all_keys(self) -> bool:
        """Whether it touches no key but those of the call."""


@dataclass(frozen=True, slots=True)
class _Variant:
    digest: str
    source: str
    reads: bool
    names_all_keys: bool


class Database:
    """Names of channels, and scripts, as they are used in one database."""

    __slots__ = ("_variants", "counted", "number", "sharded")

    def __init__(self, number: int, *, sharded: bool = False, counted: bool = True) -> None:
        self.number = number
        self.sharded = sharded
        self.counted = counted
        self._variants: dict[str, LuaScript] = {}

    def channel(self, name: str) -> str:
        """The channel that is meant by a name in this database."""
        return f"{name}\n{self.number}" if self.number else name

    def script(self, script: LuaScript) -> LuaScript:
        """The script, with channels of this database."""
        if not self.number and not self.sharded and self.counted:
            return script
        variant = self._variants.get(script.digest)
        if variant is None:
            variant = self._variants[script.digest] = self._variant(script)
        return variant

    def scripts(self, scripts: Sequence[LuaScript]) -> list[LuaScript]:
        """The same for several."""
        return [self.script(script) for script in scripts]

    def _variant(self, script: LuaScript) -> LuaScript:
        if not script.source.startswith(SCRIPT_BEGINS):
            return script
        source = script.source
        suffix, counted = f"\\n{self.number}" if self.number else "", str(self.counted).lower()
        source = f"local DATABASE, COUNTS_ALL = '{suffix}', {counted}\n{source.removeprefix(SCRIPT_BEGINS)}"
        if self.sharded:
            source = source.replace(_PUBLISH, _SHARD_PUBLISH)
        return _Variant(
            hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(),
            source,
            script.reads,
            script.names_all_keys,
        )
