"""Capabilities: matching, intersecting, the canonical form, turn rights (protocol section 11)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.errors import BadRequest, CapabilityError
from selfhost_transport.wire.actions import DEFAULT_MODES, Flag
from selfhost_transport.wire.capability import Capability, Operation, Resource

CHANNELS = [":".join(path) for length in (1, 2, 3) for path in itertools.product("ab", repeat=length)]
segments = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3).map(":".join)
resources = st.builds(str.__add__, st.sampled_from(["", "", "", "[*]", "[meta]"]), segments)
operations = st.lists(
    st.sampled_from(["publish", "subscribe", "history", "turn-start", "turn-cancel", "turn-none"]), max_size=4
) | st.just(["*"])
capabilities = st.dictionaries(resources, operations, max_size=3).map(
    lambda wire: Capability.parse(wire, strict=False)
)


@pytest.mark.parametrize(
    ("resource", "matching", "others"),
    [
        ("*", ["a", "a:b", "a:b:c", "x*"], []),
        ("ns:*", ["ns", "ns:a", "ns:a:b"], ["nsx", "n", "a:ns"]),
        ("a:*:b", ["a:x:b"], ["a:b", "a:x:y:b", "a:x", "a:x:b:c"]),
        ("*:b", ["a:b"], ["b", "a:b:c", "a"]),
        ("foo*", ["foo*"], ["foo", "foobar", "foo:a"]),
        ("[*]*", ["a", "a:b"], []),
        ("[*]a", ["a"], ["b"]),
        ("[meta]*", [], ["a", "meta", "[meta]a"]),
        ("exact:name", ["exact:name"], ["exact", "exact:name:more", "Exact:name"]),
    ],
)
def test_matching(resource: str, matching: list[str], others: list[str]) -> None:
    pattern = Resource.parse(resource)
    assert str(pattern) == resource
    assert [name for name in matching if not pattern.matches(name)] == []
    assert [name for name in others if pattern.matches(name)] == []


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("*", "a:b", "a:b"),
        ("a:*", "*", "a:*"),
        ("a:*", "a:b:c", "a:b:c"),
        ("a:*", "a:*:c", "a:*:c"),
        ("a:*", "*:b", "a:b"),
        ("a:*", "a", "a"),
        ("*:*", "a", "a"),
        ("a:b", "a:c", None),
        ("a", "a:b", None),
        ("a:b", "a:b:*:d", None),
        ("[*]*", "[meta]x", "[meta]x"),
        ("[*]*", "a:*", "a:*"),
        ("[meta]*", "[queue]*", None),
        ("[meta]*", "*", None),
    ],
)
def test_common_pattern(first: str, second: str, both: str | None) -> None:
    for one, other in ((first, second), (second, first)):
        met = Resource.parse(one).intersect(Resource.parse(other))
        assert (None if met is None else str(met)) == both


@given(resources, resources)
def test_common_pattern_covers_exactly_what_both_cover(first: str, second: str) -> None:
    one, other = Resource.parse(first), Resource.parse(second)
    met = one.intersect(other)
    for channel in CHANNELS:
        both = one.matches(channel) and other.matches(channel)
        assert (met is not None and met.matches(channel)) == both


@given(capabilities, capabilities)
def test_intersection_permits_exactly_what_both_permit(token: Capability, key: Capability) -> None:
    common = token.intersect(key)
    for channel in CHANNELS:
        for operation in Operation:
            if operation in (Operation.ALL, Operation.TURN_NONE):
                continue
            expected = token.allows(operation, channel) and key.allows(operation, channel)
            assert common.allows(operation, channel) == expected, (channel, operation)


@given(capabilities)
def test_canonical_form_is_read_back(capability: Capability) -> None:
    again = Capability.parse(capability.canonical(), strict=False)
    assert again == capability
    assert again.canonical() == capability.canonical()


def test_canonical_form_is_sorted_and_without_spaces() -> None:
    capability = Capability.parse({"b": ["subscribe", "publish"], "a:*": ["*"]})
    assert capability.canonical() == '{"a:*":["*"],"b":["publish","subscribe"]}'
    assert Capability.FULL.text == Capability.FULL.canonical() == '{"*":["*"]}'


def test_text_is_verbatim() -> None:
    assert Capability.parse('{"a": ["subscribe", "publish"]}').text == '{"a": ["subscribe", "publish"]}'
    assert Capability.parse({"a": ["subscribe"]}).text == '{"a":["subscribe"]}'


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        "[]",
        "1",
        '{"a":[]}',
        '{"a":"publish"}',
        '{"a":[1]}',
        '{"a":["*","publish"]}',
        '{"a":["fly"]}',
        '{"":["*"]}',
        '{"a":null}',
    ],
)
def test_requested_capability_has_to_have_the_right_form(bad: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Capability.parse(bad)
    assert (caught.value.info.code, caught.value.info.status_code) == (40000, 400)


def test_configured_capability_is_not_held_to_that_form() -> None:
    capability = Capability.parse({"a": [], "b": ["*", "publish"], "c": ["fly"]}, strict=False)
    assert not capability.modes("a")
    assert capability.allows("history", "b")
    assert capability.allows("fly", "c")


def test_rights_are_the_union_of_matching_resources() -> None:
    capability = Capability.parse({"*": ["subscribe"], "a:*": ["publish"], "a:b": ["history"]})
    assert capability.operations("a:b") >= {"subscribe", "publish", "history"}
    assert not capability.allows("publish", "b")
    with pytest.raises(CapabilityError) as caught:
        capability.require("publish", "b")
    assert (caught.value.info.code, caught.value.info.status_code) == (40160, 401)
    capability.require("publish", "a")


def test_modes_follow_the_operations() -> None:
    capability = Capability.parse(
        {"s": ["subscribe"], "p": ["publish"], "e": ["presence"], "h": ["history"], "x:*": ["*"]}
    )
    assert capability.modes("s") == Flag.SUBSCRIBE | Flag.PRESENCE_SUBSCRIBE | Flag.OBJECT_SUBSCRIBE
    assert capability.modes("p") == Flag.PUBLISH
    assert capability.modes("e") == Flag.PRESENCE
    assert not capability.modes("h")
    assert not capability.modes("elsewhere")
    assert capability.modes("x:1") & DEFAULT_MODES == DEFAULT_MODES


def test_rights_on_everything() -> None:
    assert Capability.FULL.allows_on_all("stats")
    assert Capability.parse({"[*]*": ["stats"]}).allows_on_all("stats")
    assert not Capability.parse({"a:*": ["*"]}).allows_on_all("stats")


@pytest.mark.parametrize(
    ("operations", "start", "cancel"),
    [
        (["*"], True, True),
        (["publish"], True, True),
        (["publish", "turn-start"], True, False),
        (["publish", "turn-cancel"], False, True),
        (["publish", "turn-none"], False, False),
        (["subscribe", "turn-cancel"], False, True),
        (["subscribe"], False, False),
        (["turn-start", "turn-cancel"], True, True),
    ],
)
def test_turn_rights(operations: list[str], start: bool, cancel: bool) -> None:
    capability = Capability.parse({"a": operations})
    assert (capability.allows("turn-start", "a"), capability.allows("turn-cancel", "a")) == (start, cancel)


def test_a_token_cannot_gain_turn_rights_that_its_key_lacks() -> None:
    key = Capability.parse({"*": ["publish", "subscribe", "turn-cancel"]})
    granted = Capability.parse({"*": ["publish"]}).intersect(key)
    assert granted.canonical() == '{"*":["publish","turn-cancel"]}'
    none = Capability.parse({"*": ["publish", "turn-start"]}).intersect(key)
    assert none.canonical() == '{"*":["publish","turn-none"]}'
    assert not none.allows("turn-start", "a")


def test_a_token_may_ask_for_less_than_publish_implies() -> None:
    key = Capability.parse({"*": ["publish", "subscribe"]})
    assert (
        Capability.parse({"*": ["subscribe", "turn-cancel"]}).intersect(key).canonical()
        == '{"*":["subscribe","turn-cancel"]}'
    )
    assert Capability.parse({"*": ["publish"]}).intersect(key).canonical() == '{"*":["publish"]}'


def test_nothing_in_common() -> None:
    assert Capability.parse({"a": ["publish"]}).intersect(Capability.parse({"b": ["*"]})).is_empty
    assert Capability.NONE.is_empty
    assert not Capability.FULL.is_empty
