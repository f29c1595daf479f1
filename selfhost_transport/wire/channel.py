"""Channel names, the params qualifier, and channel params (protocol sections 5.1 and 5.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from selfhost_transport.errors import InvalidArgument, InvalidChannelName
from selfhost_transport.wire.actions import ALL_MODES, DEFAULT_MODES, Flag, modes_from_names, modes_to_text
from selfhost_transport.wire.message_filter import MessageFilter

MAX_NAME_BYTES = 16384
MAX_REWIND_COUNT = 100
"""Messages replayed by `rewind` at most; a larger number means this one."""

_LINE_BREAKS = re.compile("[\n\v\f\r\x85\u2028\u2029]")
_FORBIDDEN_START = ("[", ":", ",", " ", "\t", "\n", "\v", "\f", "\r")
_QUALIFIED = re.compile(r"\[([^\]]*)\](.*)", re.DOTALL)
_REWIND_TIME = re.compile(r"([0-9]{1,9})([sm])")
_REWIND_COUNT = re.compile(r"[0-9]{1,9}")
_OCCUPANCY = re.compile(r"metrics(?:\.[A-Za-z]+)?")
_UNIT_MS = {"s": 1000, "m": 60_000}


@dataclass(frozen=True, slots=True)
class ChannelRef:
    """A channel as a client names it. History and fan-out use `name`; frames and errors use `full`."""

    full: str
    name: str
    params: Mapping[str, str] = field(default_factory=dict)
    # Of a derived channel, which is for subscribing only.
    filter: MessageFilter | None = None

    @property
    def namespace(self) -> str:
        """The namespace of the channel."""
        return namespace_of(self.name)


@dataclass(frozen=True, slots=True)
class RewindCount:
    """`rewind=N`: the last N messages."""

    count: int


@dataclass(frozen=True, slots=True)
class RewindTime:
    """`rewind=15s` or `2m`: the messages of the last `ms` milliseconds."""

    ms: int


@dataclass(frozen=True, slots=True)
class ChannelParams:
    """What the channel params ask for; `modes` is None where they name none."""

    rewind: RewindCount | RewindTime | None = None
    modes: Flag | None = None
    echo: bool = True
    append_full: bool = False
    occupancy: str | None = None
    delta: bool = False
    # As received, of the recognised names only: what ATTACHED repeats.
    recognised: Mapping[str, str] = field(default_factory=dict)

    def requested_modes(self, flags: int | None) -> Flag:
        """The modes asked for: those of the params, else the mode bits of `flags`, else the default set."""
        if self.modes is not None:
            return self.modes
        return Flag((flags or 0) & ALL_MODES) or DEFAULT_MODES

    def accepted(self, granted: int) -> dict[str, str] | None:
        """`params` of ATTACHED: the recognised ones, `modes` rewritten to those granted; None if empty."""
        echoed = dict(self.recognised)
        if "modes" in echoed:
            echoed["modes"] = modes_to_text(granted)
        return echoed or None


def parse_channel(full: str) -> ChannelRef:
    """Split `[?k=v]name` or `[filter=…?k=v]name` into the name, its params and filter, and check the name.

    Raises InvalidChannelName 40010, also for metachannels, which are not served, and for a bad filter.
    """
    name, query = full, ""
    selected: MessageFilter | None = None
    match = _QUALIFIED.fullmatch(full)
    if match is not None:
        qualifier, name = match[1], match[2]
        if qualifier.startswith("filter="):
            encoded, _, query = qualifier.removeprefix("filter=").partition("?")
            selected = MessageFilter.parse(encoded)
        elif not qualifier.startswith("?"):
            raise InvalidChannelName(f"channel qualifier [{qualifier[:64]}] is not supported by this service")
        else:
            query = qualifier[1:]
    check_name(name)
    return ChannelRef(full, name, dict(parse_qsl(query, keep_blank_values=True)), selected)


def check_name(name: str) -> None:
    """Hold a channel name, without qualifier, to the rules of section 5.1. Raises InvalidChannelName."""
    if not name:
        raise InvalidChannelName("the channel name is empty")
    if name.startswith(_FORBIDDEN_START):
        raise InvalidChannelName(f"a channel name cannot start with {name[0]!r}")
    if _LINE_BREAKS.search(name):
        raise InvalidChannelName("a channel name cannot contain a line break")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidChannelName("a channel name cannot contain half of a surrogate pair") from None
    if size > MAX_NAME_BYTES:
        raise InvalidChannelName(f"a channel name is at most {MAX_NAME_BYTES} bytes long")


def namespace_of(name: str) -> str:
    """The part of a name before the first `:`, or all of it."""
    return name.partition(":")[0]


def parse_params(params: Mapping[str, str]) -> ChannelParams:
    """Read channel params; names that are unknown or not served (`agent`) are ignored.

    Raises InvalidArgument 40003 for a `rewind` that cannot be understood.
    """
    recognised: dict[str, str] = {}
    rewind = params.get("rewind")
    if rewind is not None:
        recognised["rewind"] = rewind
    modes = modes_from_names(params["modes"].split(",")) if "modes" in params else Flag.NONE
    if modes:
        recognised["modes"] = params["modes"]
    echo = params.get("echo", "").lower()
    if echo in ("true", "false"):
        recognised["echo"] = params["echo"]
    append_full = params.get("appendMode") == "full"
    if append_full:
        recognised["appendMode"] = "full"
    delta = params.get("delta") == "vcdiff"
    if delta:
        recognised["delta"] = "vcdiff"
    occupancy = params.get("occupancy")
    if occupancy is not None and _OCCUPANCY.fullmatch(occupancy):
        recognised["occupancy"] = occupancy
    return ChannelParams(
        rewind=None if rewind is None else parse_rewind(rewind),
        modes=modes or None,
        echo=echo != "false",
        append_full=append_full,
        occupancy=recognised.get("occupancy"),
        delta=delta,
        recognised=recognised,
    )


def parse_rewind(text: str) -> RewindCount | RewindTime:
    """Read `N`, `15s` or `2m`; a count is capped at MAX_REWIND_COUNT. Raises InvalidArgument 40003."""
    if _REWIND_COUNT.fullmatch(text):
        return RewindCount(min(int(text), MAX_REWIND_COUNT))
    match = _REWIND_TIME.fullmatch(text)
    if match is None:
        raise InvalidArgument(
            f"rewind must be a number of messages, or a time such as 15s or 2m, not {text[:64]!r}"
        )
    return RewindTime(int(match[1]) * _UNIT_MS[match[2]])
