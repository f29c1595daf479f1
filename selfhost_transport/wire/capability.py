"""Capabilities: which operations a credential permits on which channels (protocol section 11).

Beside Ably's operations there are some of this service. `turn-start` and `turn-cancel`: within one resource
`*` implies both, and so does `publish` unless the resource names any `turn-*` operation; `turn-none` names
one without granting anything, for publishing without the right to start or cancel turns. Two more,
`reasoning-subscribe` and `tools-subscribe`, are needed where a namespace withholds such traffic (COT-4, TOL-13);
only `*` implies them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import orjson

from selfhost_transport.errors import BadRequest, CapabilityError
from selfhost_transport.wire.actions import Flag

ALL = "*"


class Operation(StrEnum):
    """Names of the operations a capability can hold."""

    ALL = "*"
    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"
    PRESENCE = "presence"
    HISTORY = "history"
    MESSAGE_UPDATE_OWN = "message-update-own"
    MESSAGE_UPDATE_ANY = "message-update-any"
    MESSAGE_DELETE_OWN = "message-delete-own"
    MESSAGE_DELETE_ANY = "message-delete-any"
    ANNOTATION_PUBLISH = "annotation-publish"
    ANNOTATION_SUBSCRIBE = "annotation-subscribe"
    OBJECT_PUBLISH = "object-publish"
    OBJECT_SUBSCRIBE = "object-subscribe"
    CHANNEL_METADATA = "channel-metadata"
    STATS = "stats"
    CONSOLE = "console"
    PUSH_SUBSCRIBE = "push-subscribe"
    PUSH_ADMIN = "push-admin"
    PRIVILEGED_HEADERS = "privileged-headers"
    TURN_START = "turn-start"
    TURN_CANCEL = "turn-cancel"
    TURN_NONE = "turn-none"
    REASONING_SUBSCRIBE = "reasoning-subscribe"
    TOOLS_SUBSCRIBE = "tools-subscribe"


_KNOWN = frozenset(operation.value for operation in Operation)
_TURN_RIGHTS = frozenset({"turn-start", "turn-cancel"})
_TURN_NAMES = _TURN_RIGHTS | {"turn-none"}
_MODES_BY_OPERATION = {
    "presence": Flag.PRESENCE,
    "publish": Flag.PUBLISH,
    "subscribe": Flag.SUBSCRIBE | Flag.PRESENCE_SUBSCRIBE | Flag.OBJECT_SUBSCRIBE,
    "annotation-publish": Flag.ANNOTATION_PUBLISH,
    "annotation-subscribe": Flag.ANNOTATION_SUBSCRIBE,
    "object-publish": Flag.OBJECT_PUBLISH,
    "object-subscribe": Flag.OBJECT_SUBSCRIBE,
}
_RESOURCE = re.compile(r"(?:\[([^\]]*)\])?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """A pattern of channel names: an optional qualifier (`meta` of `[meta]*`) and segments split at `:`.

    Only a whole segment `*` is a wildcard: one segment in the middle, zero or more at the end.
    """

    qualifier: str
    segments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Resource:
        """Read a pattern. Every text is one."""
        match = _RESOURCE.fullmatch(text)
        if match is None:
            return cls("", (text,))
        return cls(match[1] or "", tuple(match[2].split(":")))

    def __str__(self) -> str:
        path = ":".join(self.segments)
        return f"[{self.qualifier}]{path}" if self.qualifier else path

    def matches(self, channel: str) -> bool:
        """Whether the pattern covers an ordinary channel, given by its name without qualifier."""
        if self.qualifier not in ("", ALL):
            return False
        names = channel.split(":")
        pattern = self.segments
        if pattern[-1] == ALL:
            pattern = pattern[:-1]
            names = names[: len(pattern)]
        # A channel shorter than the pattern fails here, one that only lacks the trailing part does not.
        if len(names) != len(pattern):
            return False
        return all(wanted in (ALL, name) for wanted, name in zip(pattern, names, strict=True))

    def intersect(self, other: Resource) -> Resource | None:
        """The pattern of what both cover, None where that is nothing."""
        qualifier = _meet(self.qualifier, other.qualifier)
        if qualifier is None:
            return None
        segments = _meet_paths(self.segments, other.segments)
        return None if segments is None else Resource(qualifier, segments)


@dataclass(frozen=True, slots=True)
class Capability:
    """Operations by resource. The rights on a channel are the union over the resources that cover it."""

    rights: Mapping[Resource, frozenset[str]]
    # The text it was read from, which a token repeats verbatim when nothing narrower was asked for.
    source: str | None = field(default=None, compare=False)

    FULL: ClassVar[Capability]
    NONE: ClassVar[Capability]

    @classmethod
    def parse(cls, value: str | bytes | Mapping[str, Any], *, strict: bool = True) -> Capability:
        """Read a capability from its JSON text or map. Raises BadRequest 40000.

        `strict` also refuses unknown operations, empty lists and `*` beside others, as requestToken must
        (section 10.3); the capability of a configured key is not held to that form.
        """
        wire = _parse_json(value) if isinstance(value, str | bytes) else value
        rights: dict[Resource, frozenset[str]] = {}
        for text, operations in wire.items():
            resource = Resource.parse(_resource_text(text))
            # Two spellings of one resource, as `[]a` and `a`, add up.
            rights[resource] = rights.get(resource, frozenset()) | _parse_operations(text, operations, strict)
        return cls(rights, value if isinstance(value, str) else _text_of(wire))

    @property
    def is_empty(self) -> bool:
        """Whether it permits nothing at all."""
        return not any(self.rights.values())

    @property
    def text(self) -> str:
        """The JSON text it was read from, or else the canonical one."""
        return self.canonical() if self.source is None else self.source

    def canonical(self) -> str:
        """JSON with resources and operations sorted and no spaces (section 10.3)."""
        ordered = sorted((str(resource), sorted(operations)) for resource, operations in self.rights.items())
        return orjson.dumps(dict(ordered)).decode("utf-8")

    def operations(self, channel: str) -> frozenset[str]:
        """Permitted operations on a channel, implied turn rights included; `*` stands for everything."""
        found: frozenset[str] = frozenset()
        for resource, operations in self.rights.items():
            if resource.matches(channel):
                found |= _with_implied(operations)
        return found

    def allows(self, operation: str, channel: str) -> bool:
        """Whether an operation is permitted on a channel, given by its name without qualifier."""
        found = self.operations(channel)
        return ALL in found or operation in found

    def require(self, operation: str, channel: str) -> None:
        """Raise CapabilityError 40160 unless the operation is permitted on the channel."""
        if not self.allows(operation, channel):
            raise CapabilityError(f"the credentials do not permit {operation} on channel {channel[:128]!r}")

    def allows_on_all(self, operation: str) -> bool:
        """Whether an operation is permitted on `*`, as enumeration and statistics need (section 11)."""
        everything = (Resource("", (ALL,)), Resource(ALL, (ALL,)))
        found = frozenset[str]().union(*(self.rights.get(resource, frozenset()) for resource in everything))
        return ALL in found or operation in found

    def modes(self, channel: str) -> Flag:
        """The attachment modes permitted on a channel; none means that it may not be attached."""
        found = self.operations(channel)
        modes = Flag.NONE
        for operation, flags in _MODES_BY_OPERATION.items():
            if operation in found or ALL in found:
                modes |= flags
        return modes

    def intersect(self, other: Capability) -> Capability:
        """What both permit: token and key (section 11). Exact, implied turn rights included."""
        merged: dict[Resource, frozenset[str]] = {}
        for resource, operations in self.rights.items():
            for other_resource, other_operations in other.rights.items():
                common = resource.intersect(other_resource)
                shared = _common(_with_implied(operations), _with_implied(other_operations))
                if common is not None and shared:
                    merged[common] = merged.get(common, frozenset()) | shared
        return Capability({resource: _without_implied(shared) for resource, shared in merged.items()})


Capability.FULL = Capability({Resource("", (ALL,)): frozenset({ALL})}, '{"*":["*"]}')
Capability.NONE = Capability({})


def _text_of(wire: Mapping[str, Any]) -> str | None:
    """JSON in the order of a map; None where a value has no JSON form."""
    try:
        return orjson.dumps(dict(wire)).decode()
    except TypeError:
        return None


def _meet(first: str, second: str) -> str | None:
    if first == second or second == ALL:
        return first
    return second if first == ALL else None


def _meet_paths(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...] | None:
    shorter, longer = sorted((first, second), key=len)
    rest: tuple[str, ...] = ()
    if len(shorter) < len(longer):
        if shorter[-1] == ALL:
            rest = longer[len(shorter) :]
        elif len(shorter) + 1 == len(longer) and longer[-1] == ALL:
            # The trailing wildcard stands for zero segments here: `a` and `a:*` share `a`.
            pass
        else:
            return None
    met = [_meet(one, other) for one, other in zip(shorter, longer, strict=False)]
    if None in met:
        return None
    return (*(segment for segment in met if segment is not None), *rest)


def _common(first: frozenset[str], second: frozenset[str]) -> frozenset[str]:
    if ALL in first:
        return second
    return first if ALL in second else first & second


def _with_implied(operations: frozenset[str]) -> frozenset[str]:
    if "publish" in operations and not operations & _TURN_NAMES:
        return operations | _TURN_RIGHTS
    return operations - {"turn-none"} if "turn-none" in operations else operations


def _without_implied(operations: frozenset[str]) -> frozenset[str]:
    """The shortest set that `_with_implied` turns back into the given one."""
    if ALL in operations:
        return frozenset({ALL})
    if "publish" not in operations:
        return operations
    if operations >= _TURN_RIGHTS:
        return operations - _TURN_RIGHTS
    return operations if operations & _TURN_RIGHTS else operations | {"turn-none"}


def _parse_json(text: str | bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(text)
    except ValueError as error:
        raise BadRequest(f"capability is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest("capability must be a JSON object of resources and operations")
    return value


def _resource_text(text: object) -> str:
    if isinstance(text, str) and text:
        return text
    raise BadRequest("a capability's resource must be a string that is not empty")


def _parse_operations(resource: str, operations: object, strict: bool) -> frozenset[str]:
    if not isinstance(operations, list | tuple) or not all(isinstance(name, str) for name in operations):
        raise BadRequest(f"capability of {resource!r} must be a list of operations")
    names = frozenset(operations)
    if strict:
        _check_form(resource, names)
    return names


def _check_form(resource: str, names: Iterable[str]) -> None:
    found = frozenset(names)
    if not found:
        raise BadRequest(f"capability of {resource!r} lists no operation")
    if ALL in found and len(found) > 1:
        raise BadRequest(f"capability of {resource!r} combines '*' with other operations")
    unknown = sorted(found - _KNOWN)
    if unknown:
        raise BadRequest(f"capability of {resource!r} has unknown operations: {', '.join(unknown)[:200]}")
