"""Annotation types and the summaries they are folded into (protocol section 14.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

from selfhost_transport.errors import BadRequest

_TYPE = re.compile(r"[^:\s]+:(total|flag|distinct|unique|multiple)\.v1")


class Method(StrEnum):
    """How annotations of a type are folded."""

    # How many there are.
    TOTAL = "total"
    # Clients that have added one.
    FLAG = "flag"
    # Clients that have added one, by name.
    DISTINCT = "distinct"
    # The same, and each client is under one name only: the last.
    UNIQUE = "unique"
    # How many each client has added, by name.
    MULTIPLE = "multiple"

    @property
    def has_names(self) -> bool:
        """Whether annotations are counted by their names."""
        return self in (Method.DISTINCT, Method.UNIQUE, Method.MULTIPLE)

    @property
    def needs_client(self) -> bool:
        """Whether only identified clients may add one."""
        return self in (Method.FLAG, Method.DISTINCT, Method.UNIQUE)


def method_of(annotation_type: str | None) -> Method:
    """The method of a type `<namespace>:<method>.v1`. Raises BadRequest 40000 for any other text."""
    match = _TYPE.fullmatch(annotation_type or "")
    if match is None:
        methods = ", ".join(f"{method}.v1" for method in Method)
        raise BadRequest(f"an annotation's type is <namespace>:<method>, with one of {methods}")
    return Method(match[1])


@dataclass(frozen=True, slots=True)
class Tally:
    """What was added to one type under one name ('' where the method has none).

    `clients` counts the identified ones; `listed` has the first of them with what each has added.
    """

    type: str
    name: str
    total: int
    unidentified: int
    clients: int
    listed: tuple[tuple[str, int], ...]

    def to_wire(self, method: Method) -> dict[str, Any]:
        """As the summary shows it."""
        clipped = self.clients > len(self.listed)
        match method:
            case Method.TOTAL:
                return {"total": self.total}
            case Method.FLAG | Method.DISTINCT | Method.UNIQUE:
                ids = [client for client, _ in self.listed]
                return {"total": self.total, "clientIds": ids, "clipped": clipped}
            case Method.MULTIPLE:
                return {
                    "total": self.total,
                    "clientIds": dict(self.listed),
                    "clipped": clipped,
                    "totalUnidentified": self.unidentified,
                    "totalClientIds": self.clients,
                }
        assert_never(method)


def summary_to_wire(tallies: Iterable[Tally]) -> dict[str, Any]:
    """The value of `annotations.summary`: by type, and by name where the method has names."""
    summary: dict[str, Any] = {}
    for tally in tallies:
        method = method_of(tally.type)
        if method.has_names:
            summary.setdefault(tally.type, {})[tally.name] = tally.to_wire(method)
        else:
            summary[tally.type] = tally.to_wire(method)
    return summary
