"""Log lines as text or JSON: stable event names, the ids of session and turn, and no credentials.

A call names its event first and its fields after it: `logger.warning("lease.expired session=%s turn=%s", …)`. The JSON
form is made from that template, so that a value with spaces stays one field.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

Format = Literal["text", "json"]
Level = Literal["debug", "info", "warning", "error"]

PACKAGES: Final = ("agent_worker", "gateway", "selfhost_transport")
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
_HIDDEN: Final = "***"
_EVENT: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+(?=[\s:]|$)")
_PLACE: Final = re.compile(r"(?:(\w+)=)?%(?:%|[-+ #0]*[\d.]*([a-zA-Z]))")
_CREDENTIALS: Final = (
    re.compile(
        r"([?&](?:key|access_?token|token|api_?key|secret|password|resume|recover|signature)=)[^&\s\"']*",
        re.IGNORECASE,
    ),
    re.compile(r"(\b(?:bearer|basic)\s+)[\w.~+/=:-]{6,}", re.IGNORECASE),
    re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@\"']+(?=@)", re.IGNORECASE),
    re.compile(r"()\beyJ[\w-]{6,}\.[\w-]+\.[\w-]*"),
    re.compile(r"(\bsk-)[\w-]{8,}"),
)
# A shorter configured secret would blot out words of every line.
_SHORTEST_SECRET: Final = 6
_STANDARD: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))

_bound: ContextVar[Mapping[str, Any] | None] = ContextVar("log_fields", default=None)


class Fields(dict[str, Any]):
    """Several fields as one argument of a log call, for a plain `%s`."""

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.items())


def bind_log_fields(**fields: object) -> None:
    """Add fields to every JSON line of this task and of the tasks that it starts, those of user code included."""
    _bound.set({**(_bound.get() or {}), **fields})


class Redactor:
    """Leaves credentials out of a text: by their form, and configured ones wherever they stand."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({one for one in secrets if len(one) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        """The text without them."""
        if self._known is not None:
            text = self._known.sub(_HIDDEN, text)
        for form in _CREDENTIALS:
            text = form.sub(rf"\1{_HIDDEN}", text)
        return text


redact: Final = Redactor()
"""Leaves out what has the form of a credential."""


class TextFormatter(logging.Formatter):
    """Lines for people, without credentials."""

    def __init__(self, hide: Redactor) -> None:
        super().__init__(_TEXT)
        self._hide = hide

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        return self._hide(super().format(record))


_DECIMALS: Final = 3
"""Of a number in JSON: those of a clock have a dozen."""


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `event`, `message`, and the fields of the event."""

    def __init__(self, hide: Redactor) -> None:
        super().__init__()
        self._hide = hide

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line of JSON. `event` is `log` for records of other software."""
        message = record.getMessage()
        event = _EVENT.match(message)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event[0] if event else "log",
            "message": message,
        }
        for fields in (dict(_fields_of(record)), _bound.get() or {}, _extras_of(record)):
            for name, value in fields.items():
                line.setdefault(name, value)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["traceback"] = self.formatException(record.exc_info)
        clean = {name: self._clean(value) for name, value in line.items()}
        return orjson.dumps(clean, option=orjson.OPT_NON_STR_KEYS, default=str).decode()

    def _clean(self, value: object) -> object:
        if isinstance(value, float):
            return round(value, _DECIMALS)
        if value is None or isinstance(value, bool | int):
            return value
        text = value if isinstance(value, str) else str(value)
        # Halves of characters have no place in JSON.
        return self._hide(text).encode("utf-8", "replace").decode()


def _fields_of(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    """The named places of the template with their arguments."""
    if not isinstance(record.msg, str) or not isinstance(record.args, tuple):
        return
    arguments = iter(record.args)
    for place in _PLACE.finditer(record.msg):
        name, kind = place.groups()
        if kind is None:
            continue
        value = next(arguments, None)
        if isinstance(value, Fields):
            yield from value.items()
        elif name is not None:
            yield name, repr(value) if kind == "r" else value


def _extras_of(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def configure_logging(form: Format, level: Level, secrets: Iterable[str] = ()) -> None:
    """Write logs to standard error in this form. `level` is that of this product; other software logs its warnings."""
    hide = Redactor(secrets)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(hide) if form == "json" else TextFormatter(hide))
    root = logging.getLogger()
    for one in list(root.handlers):
        if isinstance(one.formatter, TextFormatter | JsonFormatter):
            root.removeHandler(one)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in PACKAGES:
        logging.getLogger(name).setLevel(level.upper())
