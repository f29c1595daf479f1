"""Rights of one tenant never reach another, whatever the pattern (AUT-13)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.wire.capability import Capability

TENANTS = st.lists(st.sampled_from(["a", "b", "*", "ab", "a*", "x"]), min_size=1, max_size=4).map(":".join)


@given(TENANTS, TENANTS)
def test_aut_13_a_tenants_rights_never_reach_another(pattern: str, channel: str) -> None:
    mine = Capability.parse({f"a:{pattern}": ["*"]}, strict=False)
    wide = Capability.parse({pattern: ["*"]}, strict=False)
    granted = wide.intersect(Capability.parse({"a:*": ["*"]}))
    for capability in (mine, granted):
        assert not capability.operations(f"b:{channel}")
        assert not capability.operations(f"ab:{channel}")
        assert not capability.operations(channel) or channel.split(":")[0] == "a"
