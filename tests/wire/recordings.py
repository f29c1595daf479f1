"""The recorded transcripts of the SDKs (tests/vectors/ably), as frames."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfhost_transport.wire.codec import Format, pack

FOLDER = Path(__file__).parent.parent / "vectors" / "ably"
SECRET = "secret0123456789"


@dataclass(frozen=True)
class Recorded:
    """One frame: `direction` is c2s or s2c, `wire` the map, `raw` the bytes or text as they were sent."""

    scenario: str
    direction: str
    fmt: Format
    wire: dict[str, Any]
    raw: str | bytes


def scenarios() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every transcript by name."""
    for path in sorted(FOLDER.glob("*.json")):
        yield path.stem, json.loads(path.read_text("utf-8"))


def events(kind: str) -> Iterator[tuple[str, Format, dict[str, Any]]]:
    """Every event of one kind, with its scenario and format."""
    for name, scenario in scenarios():
        for fmt, run in scenario["runs"].items():
            for event in run["events"]:
                if event["dir"] == kind:
                    yield name, Format(fmt), event


def frames(direction: str) -> list[Recorded]:
    """Every frame that went in one direction."""
    return [
        Recorded(name, direction, fmt, as_sent(event["msg"]), _raw(event, fmt))
        for name, fmt, event in events(direction)
        if "msg" in event
    ]


def distinct(recorded: Iterable[Recorded]) -> list[Recorded]:
    """The first frame of each shape in each format: what differs in values alone is read by the same code."""
    first: dict[tuple[str, Format, Any], Recorded] = {}
    for frame in recorded:
        first.setdefault((frame.direction, frame.fmt, _shape(frame.wire)), frame)
    return list(first.values())


def _shape(value: Any, name: str = "") -> Any:
    """The fields and the kinds of their values; of numbers that choose what follows, the value."""
    if isinstance(value, dict):
        return tuple(sorted((key, _shape(item, key)) for key, item in value.items()))
    if isinstance(value, list):
        return tuple(sorted({repr(_shape(item)) for item in value}))
    if name in ("action", "flags", "encoding"):
        return repr(value)
    return type(value).__name__


def _raw(event: dict[str, Any], fmt: Format) -> str | bytes:
    if "raw_text" in event:
        return str(event["raw_text"])
    packed = pack(as_sent(event["msg"]), fmt)
    recorded = bytes.fromhex(event.get("raw_hex", ""))
    # Long recordings were cut.
    return recorded if len(recorded) >= len(packed) else packed


def as_sent(value: Any) -> Any:
    """A recorded value with its binary parts as bytes."""
    if isinstance(value, dict):
        if set(value) == {"$bin_base64"}:
            return b64decode(value["$bin_base64"])
        return {key: as_sent(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_sent(item) for item in value]
    return value
