"""Loads the Lua files: one atomic state change each.

A script begins with what it takes:

    --@keys leases
    --@argv base lease_ms:number turns...

The loader makes a local of each name, a Lua number of one with `:number`. A last name with dots stands for all further
values: `turns_at` is the place of the first in `ARGV` (or `KEYS`). `call` builds a call from the same names.

`several` makes a script of a script: the same for several calls at once.

A line `--@include name` is replaced by that file, so that shared steps exist once; the first time, should files
include the same. A word such as `TURN.status` becomes the name of that field (`fields.py`). A script that publishes puts
`DATABASE` behind the name of a channel (`redis_io/databases.py`). Functions and names of included files that a script does
not use are left out of it. A script knows its own digest; the connection loads
it into Redis when it is missing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import Final

from selfhost_transport.redis_io.databases import SCRIPT_BEGINS
from selfhost_transport.redis_io.link import Argument
from selfhost_transport.store.fields import IN_LUA
from selfhost_transport.store.keys import Keyspace

_FOLDER = Path(__file__).parent / "scripts"
_CALLED = re.compile(r"(?:redis\.call|call_if_ours)\('([A-Z]+)'")
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
_INCLUDE: Final = re.compile(r"^--@include (\S+)$", re.MULTILINE)
_TAKES: Final = re.compile(r"^--@(keys|argv)((?: [a-z_]+(?::number|\.\.\.)?)+)$", re.MULTILINE)
_COMMENT: Final = re.compile(r"^\s*--.*\n", re.MULTILINE)
_DEFINITION: Final = re.compile(
    r"^local (?:function (?P<name>\w+)\([^()\n]*\)(?: .* end\n|.*\n(?:(?!end$).*\n)*end\n)"
    r"|(?P<names>\w+(?:, \w+)*) = [^()\[\]{}\n]+(?<!,)\n)",
    re.MULTILINE,
)
"""At the margin: a function, on one line or up to the first `end` there; or values made without any call, on one line."""
_WORD: Final = re.compile(r"\w+")
_FIELD: Final = re.compile(rf"\b({'|'.join(IN_LUA)})\.([a-z_]+)\b")

Call = tuple["Script", Sequence[Argument], Sequence[Argument]]
"""A script, its keys and its arguments: what `RedisConnection.call` takes."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a script takes, of keys or of arguments. `rest` names what may follow in any number, or is ''."""

    fixed: tuple[str, ...] = ()
    numbers: frozenset[str] = frozenset()
    rest: str = ""

    @classmethod
    def parse(cls, words: Sequence[str]) -> Names:
        """Read the words of a header. Raises ValueError for one after the rest."""
        if any(word.endswith("...") for word in words[:-1]):
            raise ValueError("the name with dots stands last")
        rest = words[-1].removesuffix("...") if words and words[-1].endswith("...") else ""
        named = words[:-1] if rest else words
        numbers = frozenset(word.removesuffix(":number") for word in named if word.endswith(":number"))
        return cls(tuple(word.removesuffix(":number") for word in named), numbers, rest)

    def locals(self, table: str, first: str = "") -> Iterator[str]:
        """The line of Lua that gives the values their names. `first`: where the first is in the table; by default at 1."""
        places = [f"{first} + {at}" if first else str(at + 1) for at in range(len(self.fixed))]
        values = [
            f"tonumber({table}[{at}])" if name in self.numbers else f"{table}[{at}]"
            for name, at in zip(self.fixed, places, strict=True)
        ]
        if self.fixed:
            yield f"local {', '.join(self.fixed)} = {', '.join(values)}"
        if self.rest:
            yield f"local {self.rest}_at = {len(self.fixed) + 1}"


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the SHA-1 digest under which Redis keeps it."""

    name: str
    source: str
    digest: str
    reads: bool
    keys: Names
    arguments: Names

    @property
    def names_all_keys(self) -> bool:
        """Whether it touches no key but those of the call; one that builds names has a fixed number of keys."""
        return bool(self.keys.rest)

    def call(
        self, rest: Sequence[Argument] = (), more_keys: Sequence[Argument] = (), /, **named: Argument
    ) -> Call:
        """A call of the script with a value for each name of its header. Raises TypeError for a name too many or too few."""
        if len(named) != len(self.keys.fixed) + len(self.arguments.fixed):
            raise TypeError(self._misfit(named))
        try:
            keys = [named[name] for name in self.keys.fixed]
            arguments = [named[name] for name in self.arguments.fixed]
        except KeyError as error:
            raise TypeError(self._misfit(named)) from error
        if (rest and not self.arguments.rest) or (more_keys and not self.keys.rest):
            raise TypeError(f"the script {self.name} takes no more values than those with names")
        return self, [*keys, *more_keys], [*arguments, *rest]

    def _misfit(self, named: Mapping[str, Argument]) -> str:
        wanted = {*self.keys.fixed, *self.arguments.fixed}
        missing, unknown = sorted(wanted - named.keys()), sorted(named.keys() - wanted)
        return f"the script {self.name} is called without {missing}, and with {unknown} that it does not take"


@cache
def load(name: str) -> Script:
    """The script `scripts/<name>.lua` with its includes. Raises ValueError for an unknown field or a bad header."""
    text = (_FOLDER / f"{name}.lua").read_text()
    keys, arguments = _names(text, "keys"), _names(text, "argv")
    clash = set(keys.fixed) & set(arguments.fixed)
    if clash:
        raise ValueError(f"the script {name} has keys and arguments of the same names: {sorted(clash)}")
    header = "\n".join([*keys.locals("KEYS"), *arguments.locals("ARGV")])
    return _script(name, _with_includes(_with_header(text, header), {f"{name}.lua"}), keys, arguments)


@cache
def several(name: str) -> Script:
    """The script that makes several calls of `name` at once (`_several.lua`): keys and arguments are those of each in turn.

    `name` names all its keys, takes a fixed number of values, and returns a word.
    """
    text = (_FOLDER / f"{name}.lua").read_text()
    keys, arguments = _names(text, "keys"), _names(text, "argv")
    header = "\n".join([*keys.locals("KEYS", "key"), *arguments.locals("ARGV", "value")])
    once = _with_includes(_with_header(text, header), {f"{name}.lua"})
    whole = (_FOLDER / "_several.lua").read_text().replace("--@script", indent(once, "  "))
    for word, names in (("KEYS_OF_ONE", keys), ("ARGUMENTS_OF_ONE", arguments)):
        whole = whole.replace(word, str(len(names.fixed)))
    return _script(f"{name}, several", whole, Names(rest="keys"), Names(rest="values"))


def _script(name: str, text: str, keys: Names, arguments: Names) -> Script:
    whole = _FIELD.sub(_stored_name, text)
    source = _without_unused(whole)
    if "DATABASE" in source:
        source = SCRIPT_BEGINS + source
    digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, digest, _only_reads(whole), keys, arguments)


def call(
    name: str, rest: Sequence[Argument] = (), more_keys: Sequence[Argument] = (), /, **named: Argument
) -> Call:
    """A call of a script, by the names of its header; `rest` and `more_keys` follow those."""
    return load(name).call(rest, more_keys, **named)


def session_call(
    name: str, keys: Keyspace, session: str, rest: Sequence[Argument] = (), /, **named: Argument
) -> Call:
    """A call of a script about one session, which takes the key `meta` and the arguments `base` and `session`."""
    base = keys.base_of(session)
    return load(name).call(rest, meta=f"{base}s:{session}", base=base, session=session, **named)


def everything() -> list[Script]:
    """All scripts."""
    return [*(load(path.stem) for path in sorted(_FOLDER.glob("[!_]*.lua"))), several("append")]


def _only_reads(source: str) -> bool:
    return set(_CALLED.findall(source)) <= _READ


def _names(text: str, kind: str) -> Names:
    return Names.parse(
        [word for found in _TAKES.finditer(text) if found[1] == kind for word in found[2].split()]
    )


def _with_header(text: str, header: str) -> str:
    """The text with the locals in place of the lines that name them."""
    first = _TAKES.search(text)
    if first is None:
        return text
    return f"{text[: first.start()]}{header}\n{_TAKES.sub('', text[first.start() :]).lstrip()}"


def _with_includes(text: str, included: set[str]) -> str:
    def read(found: re.Match[str]) -> str:
        if found[1] in included:
            return ""
        included.add(found[1])
        return _with_includes((_FOLDER / found[1]).read_text(), included)

    return _INCLUDE.sub(read, text)


def _without_unused(source: str) -> str:
    """The source without what it defines and never uses: Redis makes all of it anew with each call of the script."""
    source = _COMMENT.sub("", f"{source}\n")
    defined: dict[str, str] = {}
    for found in _DEFINITION.finditer(source):
        defined |= dict.fromkeys(_defined_by(found), found[0])
    used: set[str] = set()
    to_read = [_DEFINITION.sub("", source)]
    while to_read:
        fresh = {*_WORD.findall(to_read.pop())} & defined.keys() - used
        used |= fresh
        to_read += [defined[name] for name in fresh]
    return _DEFINITION.sub(lambda found: "" if used.isdisjoint(_defined_by(found)) else found[0], source)


def _defined_by(found: re.Match[str]) -> list[str]:
    return [found["name"]] if found["name"] else found["names"].split(", ")


def _stored_name(found: re.Match[str]) -> str:
    table, word = found[1], found[2]
    field = IN_LUA[table].__members__.get(word.upper())
    if field is None:
        raise ValueError(f"no field {table}.{word} in store/fields.py")
    return f"'{field}'"
