"""The faults of a configuration, with their place: the file and line, the variable or the flag, in the words of the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

Loc = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*(\[\[?)\s*([A-Za-z0-9_.\"'-]+)\s*\]\]?")


def explain(
    error: ValidationError, model: type[BaseModel], config: Path | None, given: Mapping[tuple[str, ...], str]
) -> str:
    """All problems, one after the other. `given`: by path, the flag or variable that a value comes from."""
    text = _read(config)
    return "; ".join(
        f"{_place(problem['loc'], config, text, given)}{_problem(dict(problem), model)}"
        for problem in error.errors(include_input=False, include_url=False)
    )


def _place(loc: Loc, config: Path | None, text: str, given: Mapping[tuple[str, ...], str]) -> str:
    path = tuple(part for part in loc if isinstance(part, str))
    for length in range(len(path), 0, -1):
        if (source := given.get(path[:length])) is not None:
            return f"{source}: "
    name = f"{_name(loc)}: " if loc else ""
    if config is None:
        return name or "configuration: "
    line = line_of(text, loc)
    return f"{config}{f', line {line}' if line else ''}: {name}"


def _name(loc: Loc) -> str:
    """As the file writes it: `port in [gateway]`, `name in [[keys]] number 2`, `capability.a:*` for an entry of a table."""
    match loc:
        case (str(table), int(index)):
            return f"[[{table}]] number {index + 1}"
        case (str(table), int(index), *rest):
            return f"{_dotted(rest)} in [[{table}]] number {index + 1}"
        case (str(table), str(), *_):
            return f"{_dotted(loc[1:])} in [{table}]"
    return _dotted(loc)


def _dotted(loc: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in loc if isinstance(part, str))


def _problem(problem: dict[str, Any], model: type[BaseModel]) -> str:
    owner, message = _model_at(model, problem["loc"][:-1]), str(problem["msg"])
    field = owner.model_fields.get(str(problem["loc"][-1])) if owner and problem["loc"] else None
    match problem["type"]:
        case "extra_forbidden":
            known = list(owner.model_fields) if owner is not None else []
            return f"unknown key{did_you_mean(str(problem['loc'][-1]), known)}"
        case "missing":
            return f"is missing: {_first_sentence(field.description)}" if field else "is missing"
        case "string_pattern_mismatch" if field is not None:
            return f"has the wrong form: {_first_sentence(field.description)}"
    return message.removeprefix("Value error, ")


def _first_sentence(text: str | None) -> str:
    return (text or "").split("\n")[0].rstrip(".")


def did_you_mean(given: str, known: Collection[str]) -> str:
    """`; did you mean 'policy'?`, or ''."""
    found = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    found: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int) or found is None:
            continue
        field = found.model_fields.get(part)
        found = _section_in(field.annotation) if field is not None else None
    return found


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((section for part in get_args(annotation) if (section := _section_in(part))), None)


def line_of(text: str, loc: Loc) -> int | None:
    """The line of a TOML file that a value stands in, else that of its table; None where neither is found."""
    table, index, key = _split(loc)
    here, count, at_table = "", -1, None
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            here = header[2]
            count = count + 1 if here == table and header[1] == "[[" else count
            if here == (table or key) and index in (None, count):
                at_table = number
        elif (here == table and (index is None or count == index) and _assigns(line, key)) or (
            not table and _assigns(line, key)
        ):
            return number
    return at_table


def _assigns(line: str, key: str | None) -> bool:
    return key is not None and re.match(rf"^\s*[\"']?{re.escape(key)}[\"']?\s*=", line) is not None


def _split(loc: Loc) -> tuple[str, int | None, str | None]:
    """Table, number among those of its name, and key."""
    match loc:
        case (str(table), int(index), str(key), *_):
            return table, index, key
        case (str(table), int(index)):
            return table, index, None
        case (str(table), str(key), *_):
            return table, None, key
        case (str(key),):
            return "", None, key
    return "", None, None


def _read(config: Path | None) -> str:
    try:
        return config.read_text() if config is not None else ""
    except (OSError, UnicodeDecodeError):
        return ""
