"""Channel names, qualifiers and params (protocol sections 5.1 to 5.3)."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import InvalidArgument, InvalidChannelName
from selfhost_transport.wire.actions import DEFAULT_MODES, Flag, modes_from_names, modes_to_text
from selfhost_transport.wire.channel import (
    MAX_NAME_BYTES,
    MAX_REWIND_COUNT,
    RewindCount,
    RewindTime,
    check_name,
    namespace_of,
    parse_channel,
    parse_params,
    parse_rewind,
)
from tests.wire.recordings import frames


@pytest.mark.parametrize(
    "name", ["a", "conv:1", "foo*", "a[b]", "ünï", "a b", "a,b", "\0", "a::b", "]", "x" * MAX_NAME_BYTES]
)
def test_good_names(name: str) -> None:
    assert parse_channel(name).name == name


@pytest.mark.parametrize(
    "name",
    [
        "", ":a", ",a", " a", "\ta", "[a", "a\nb", "a\rb", "a\vb", "a\fb", "a\x85b", "a\u2028b", "a\u2029b",
        "[?rewind=1]", "[?rewind=1]:a", "[?rewind=1][?rewind=1]a", "[meta]a", "[filter=x]a", "[]a",
        "x" * (MAX_NAME_BYTES + 1), "é" * MAX_NAME_BYTES,
    ],
)  # fmt: skip
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidChannelName) as caught:
        parse_channel(name)
    assert (caught.value.info.code, caught.value.info.status_code) == (40010, 400)


def test_a_bracket_is_allowed_inside_but_not_in_front() -> None:
    check_name("a[1]")
    with pytest.raises(InvalidChannelName):
        check_name("[1]a")


def test_qualifier_gives_params_and_keeps_the_full_name() -> None:
    channel = parse_channel("[?rewind=2m&modes=subscribe&x=%20y]conv:1")
    assert channel.full == "[?rewind=2m&modes=subscribe&x=%20y]conv:1"
    assert channel.name == "conv:1"
    assert channel.namespace == "conv"
    assert channel.params == {"rewind": "2m", "modes": "subscribe", "x": " y"}
    assert parse_channel("[?]a").params == {}


def test_namespace_is_up_to_the_first_colon() -> None:
    assert [namespace_of(name) for name in ("a:b:c", "a", "a:")] == ["a", "a", "a"]


@pytest.mark.parametrize(
    ("text", "rewind"),
    [
        ("1", RewindCount(1)),
        ("0", RewindCount(0)),
        ("99999", RewindCount(MAX_REWIND_COUNT)),
        ("15s", RewindTime(15_000)),
        ("2m", RewindTime(120_000)),
    ],
)
def test_rewind(text: str, rewind: RewindCount | RewindTime) -> None:
    assert parse_rewind(text) == rewind


@pytest.mark.parametrize("text", ["", "-1", "x", "2h", "1.5", "s", "2 m", "\u0663", "1" * 30])
def test_rewind_that_means_nothing_fails_the_attach(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_params({"rewind": text})
    assert caught.value.info.code == 40003


def test_params_and_what_attached_repeats() -> None:
    params = parse_params(
        {
            "rewind": "500", "modes": "PUBLISH, subscribe,nonsense", "echo": "false", "appendMode": "full",
            "occupancy": "metrics.publishers", "delta": "vcdiff", "agent": "x/1", "other": "1",
        }
    )  # fmt: skip
    assert params.rewind == RewindCount(MAX_REWIND_COUNT)
    assert params.modes == Flag.PUBLISH | Flag.SUBSCRIBE
    assert (params.echo, params.append_full) == (False, True)
    assert params.accepted(Flag.SUBSCRIBE | Flag.RESUMED) == {
        "rewind": "500",
        "modes": "subscribe",
        "echo": "false",
        "appendMode": "full",
        "occupancy": "metrics.publishers",
        "delta": "vcdiff",
    }
    assert params.delta
    other = parse_params({"delta": "xdelta"})
    assert not other.delta and other.accepted(Flag.SUBSCRIBE) is None
    assert params.occupancy == "metrics.publishers"


def test_unknown_values_are_not_repeated() -> None:
    params = parse_params(
        {"echo": "maybe", "appendMode": "delta", "occupancy": "all", "modes": "x", "agent": "a"}
    )
    assert params.accepted(DEFAULT_MODES) is None
    assert (params.echo, params.append_full, params.modes) == (True, False, None)


def test_requested_modes_come_from_params_then_flags_then_the_default() -> None:
    flags = Flag.SUBSCRIBE | Flag.ATTACH_RESUME
    assert parse_params({"modes": "publish"}).requested_modes(flags) == Flag.PUBLISH
    assert parse_params({"modes": "nonsense"}).requested_modes(flags) == Flag.SUBSCRIBE
    assert parse_params({}).requested_modes(Flag.ATTACH_RESUME) == DEFAULT_MODES == 3080192
    assert parse_params({}).requested_modes(None) == DEFAULT_MODES


def test_mode_names_are_those_of_the_bits() -> None:
    modes = DEFAULT_MODES | Flag.OBJECT_PUBLISH
    assert modes_from_names(modes_to_text(modes).split(",")) == modes
    assert modes_to_text(Flag.PUBLISH | Flag.HAS_BACKLOG) == "publish"


def test_params_of_every_recorded_attach_are_understood() -> None:
    attaches = [
        frame.wire for frame in frames("c2s") if frame.wire["action"] == 10 and frame.wire.get("params")
    ]
    assert attaches
    for wire in attaches:
        parsed = parse_params({key: str(value) for key, value in wire["params"].items()})
        assert set(parsed.recognised) <= set(wire["params"]) - {"agent"}
        assert (parsed.rewind is not None) == ("rewind" in wire["params"])
