"""The scripts: what they take is named once, and every field they use is in the table."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import selfhost_transport
from selfhost_transport.store import fields, scripts
from selfhost_transport.store.keys import Keyspace

PACKAGE = Path(selfhost_transport.__file__).parent
FOLDER = PACKAGE / "store" / "scripts"
SCRIPTS = {script.name: script for script in scripts.everything() if not script.name.endswith(", several")}
# Functions that call scripts, and the names that each adds to those it is given.
CALLERS: dict[str, set[str]] = {
    "call": set(),
    "session_call": {"meta", "base", "session"},
    "run": {"meta", "base", "session"},
    # Of a lease, and of a connection in each bucket.
    "run_held": {"meta", "base", "session", "turn", "fence"},
    "_of_connection": {"holder", "base", "connection"},
}
# Commands on a hash, and how far apart its fields stand among the arguments behind the key.
HASH_COMMANDS = {"HGET": 1, "HMGET": 1, "HDEL": 1, "HEXISTS": 1, "HSET": 2, "HSETNX": 2, "HINCRBY": 2}
# Hashes whose fields are names of something.
NAMED_FIELDS = re.compile(
    r"K_GROUPS|K_ACTIVE|K_ROSTER|'stats'|'dropped'|given_key|occupancy|revocations|exporters|dropped|subscriptions|'of:'"
)


def lua_files() -> list[Path]:
    return sorted(FOLDER.glob("*.lua"))


def without_comments(source: str) -> str:
    return re.sub(r"--[^\n]*", "", source)


def arguments_of(source: str, start: int) -> list[str]:
    """The arguments of a call whose bracket opens before `start`."""
    found, depth, at, quoted = [""], 0, start, False
    while depth >= 0:
        letter = source[at]
        quoted = quoted != (letter == "'" and source[at - 1] != "\\")
        if not quoted:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0 and not quoted:
            found.append("")
        elif depth >= 0:
            found[-1] += letter
        at += 1
    return [argument.strip() for argument in found]


def hash_fields(source: str) -> Iterator[tuple[str, str]]:
    """Key and field, as they are written, of everything that a script does with a hash."""
    for called in re.finditer(r"redis\.p?call\(", source):
        command, *arguments = arguments_of(source, called.end())
        step = HASH_COMMANDS.get(command.strip("'"))
        if step is not None:
            yield from ((arguments[0], field) for field in arguments[1::step])


def calls_in_python() -> Iterator[tuple[str, set[str], set[str], str]]:
    """Script, names that are given to it, names that the called function adds, and where, of each call with a literal name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            first, keywords = node.args[0], {keyword.arg for keyword in node.keywords}
            function = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if (
                function in CALLERS
                and isinstance(first, ast.Constant)
                and first.value in SCRIPTS
                and None not in keywords
            ):
                given = {name for name in keywords if name not in (None, "retry_s")}
                yield first.value, given, CALLERS[function], f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_script_reads_what_it_takes_by_name(name: str) -> None:
    source = without_comments((FOLDER / f"{name}.lua").read_text())
    assert re.findall(r"(?:ARGV|KEYS)\[\d", source) == []
    script, declared = SCRIPTS[name], Counter[str]()
    for line in re.findall(r"^local (?:function )?([\w, ]+)", without_comments(script.source), re.MULTILINE):
        declared.update(line.replace(" ", "").split(","))
    # Each has its value from the header alone.
    assert {name: declared[name] for name in (*script.keys.fixed, *script.arguments.fixed)} == dict.fromkeys(
        (*script.keys.fixed, *script.arguments.fixed), 1
    )


def test_python_names_exactly_what_each_script_takes() -> None:
    seen = set()
    for name, given, added, where in calls_in_python():
        seen.add(name)
        taken = {*SCRIPTS[name].keys.fixed, *SCRIPTS[name].arguments.fixed}
        assert given - taken == set(), f"{where}: {name} does not take these"
        assert taken - given - added == set(), f"{where}: {name} needs these"
    # The first two are called with a name in a variable, the last with names in a mapping: `Script.call` checks those.
    assert set(SCRIPTS) - seen == {"adopt", "claim", "mutate"}


def test_a_call_that_does_not_fit_is_refused() -> None:
    keys = Keyspace()
    with pytest.raises(TypeError, match=r"publish is called without \['entry'.*with \[\]"):
        scripts.session_call("publish", keys, "room")
    with pytest.raises(TypeError, match=r"without \['ttl_ms'\], and with \['ttl'\]"):
        scripts.call("fleet", workers="w", worker="one", ttl=1)
    with pytest.raises(TypeError, match="no more values"):
        scripts.call("fleet", ["more"], workers="w", worker="one", ttl_ms=1)
    script, names, arguments = scripts.call(
        "renew", ["t", "room", 1], leases="l", base="b", window_ms=2, lease_ms=1
    )
    assert (script.name, names, arguments) == ("renew", ["l"], ["b", 1, 2, "t", "room", 1])


def test_every_field_of_a_hash_is_in_the_table() -> None:
    """By its word: no script and no include writes down the stored name of one."""
    seen = 0
    for path in lua_files():
        for key, field in hash_fields(without_comments(path.read_text())):
            if not NAMED_FIELDS.search(key) and "'" in field:
                raise AssertionError(f"{path.name}: {field} of {key} is not a word of store/fields.py")
            seen += re.match(r"(?:SESSION|MESSAGE|TURN|PACE|CONNECTION)\.", field) is not None
    assert seen > 150


def test_every_field_in_the_table_is_used_and_stored_once() -> None:
    written = "\n".join(path.read_text() for path in [*lua_files(), *PACKAGE.rglob("*.py")])
    for name, table in fields.IN_LUA.items():
        stored = [str(field) for field in table.__members__.values()]
        assert len(stored) == len(set(stored)) == len(table)
        for field in table:
            assert field.meaning
            word = field.name.lower()
            used = re.search(
                rf"\b{name}\.{word}\b|\b(?:{table.__name__}|Record|Item)\.{field.name}\b|tuple\(Record\)",
                written,
            )
            assert used, f"{name}.{word} is not used"


def test_an_unknown_field_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "_FOLDER", tmp_path)
    (tmp_path / "wrong.lua").write_text("--@keys meta\nreturn redis.call('HGET', meta, TURN.colour)\n")
    with pytest.raises(ValueError, match=r"no field TURN\.colour"):
        scripts.load.__wrapped__("wrong")


def test_what_a_script_defines_and_does_not_use_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "_FOLDER", tmp_path)
    (tmp_path / "_shared.lua").write_text(
        "local function one(id) return (id) end\n"
        "-- Calls itself, and one.\n"
        "local function unused(a, b)\n  if a then return unused(one(b)) end\nend\n"
        "local function two(id) return one(id) end\n"
        "local function four()\n  for _ in two() do\n    two()\n  end\nend\n"
        "local five = 5\n"
        "local six, seven = 6, two\n"
        "local eight = redis.call('INCR', 'a')\n"
    )
    (tmp_path / "some.lua").write_text("--@keys meta\n--@include _shared.lua\nreturn two(meta) + six\n")
    source = scripts.load.__wrapped__("some").source
    assert [line for line in source.splitlines() if line] == [
        "local meta = KEYS[1]",
        "local function one(id) return (id) end",
        "local function two(id) return one(id) end",
        "local six, seven = 6, two",
        "local eight = redis.call('INCR', 'a')",
        "return two(meta) + six",
    ]


def test_no_script_defines_what_it_does_not_use() -> None:
    defined = 0
    for script in SCRIPTS.values():
        words = Counter(re.findall(r"\w+", script.source))
        for name in re.findall(r"local function (\w+)", script.source):
            assert words[name] > 1, f"{script.name}: {name}"
            defined += 1
    assert defined > 500


def test_stored_names_stay() -> None:
    """What is in Redis already is read by these names; to rename one is to change the format (store/format.py)."""
    stored = {name: " ".join(table.__members__.values()) for name, table in fields.IN_LUA.items()}
    assert stored == {
        "SESSION": "series floor suspended rt cut tc tn tr er imported",
        "MESSAGE": "t v e b x n a o y",
        "TURN": "st ag ow cn in ip bh po qm tr qi tp at hb lw ma oc co ap ri fn wk sq sr cp ce cr cm hk hd rs ss sc sf rc re "
        "rm n o: aw k: d: es ex ef df sf_fence sf_at dw by sp si sl sx sn sd sk S:",
        "PACE": "n ms at",
        "CONNECTION": "owner node remain s:",
        "LOG": "e",
        "QUEUE": "t s",
        "DEAD_LETTER": "t s at wk",
        "ENDED": "t s se st ag ow ip tp op ev er id",
        "PUSH": "p s c at d er",
    }
