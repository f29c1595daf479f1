"""Writes the table of docs/logs.md from the log calls in the code, so that the page cannot fall behind them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "logs.md"
BEGIN, END = "<!-- events: written by scripts/write_log_events.py -->", "<!-- /events -->"

_LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
_NAME = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+(?=[\s:]|$)")
_FIELD = re.compile(r"(\w+)=%")
_EVENT_ARGUMENT = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")


class Event(NamedTuple):
    """One name with its levels and fields."""

    name: str
    level: str
    fields: tuple[str, ...]


def calls() -> Iterator[tuple[Path, ast.Call]]:
    """Every call of a logger in the three packages."""
    for package in ("gateway", "agent_worker", "selfhost_transport"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id in ("logger", "_log", "audit")
                    and node.func.attr in _LEVELS
                ):
                    yield path, node


def template(call: ast.Call) -> str:
    """The text of a call up to its arguments; '' when it is not a plain text."""
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def events() -> list[Event]:
    """All events with a name in their template, sorted."""
    found: dict[str, tuple[str, dict[str, None]]] = {}
    for _, call in calls():
        text = template(call)
        name = _NAME.match(text)
        if name is None or not isinstance(call.func, ast.Attribute):
            continue
        level, fields = found.setdefault(name[0], (_LEVELS[call.func.attr], {}))
        fields.update(dict.fromkeys(_FIELD.findall(text)))
        if " %s" in text[: name.end() + 3]:
            fields.update({"session": None, "turn": None})
        found[name[0]] = (level, fields)
    # Named by an argument, since several places share one call.
    for path in ("agent_worker/runtime/turn_run.py",):
        for name_, level in re.findall(
            r'self\._log\([^)]*?"(\w+\.\w+)".*?logging\.(\w+)\)', (ROOT / path).read_text()
        ):
            found.setdefault(
                name_,
                (level.lower(), dict.fromkeys(("session", "turn", "attempt", "agent", "outcome", "ms"))),
            )
    return [Event(name, level, tuple(fields)) for name, (level, fields) in sorted(found.items())]


def table() -> str:
    """The table of the page."""
    rows = ["| event | level | fields |", "|---|---|---|"]
    rows += [f"| `{e.name}` | {e.level} | {', '.join(f'`{one}`' for one in e.fields)} |" for e in events()]
    return "\n".join(rows)


def page(current: str) -> str:
    """The page with its table brought up to date."""
    before, _, rest = current.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
