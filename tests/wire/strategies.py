"""Hypothesis strategies for what travels on the wire."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message, Version

texts = st.text(max_size=20)
names = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
extras = st.dictionaries(texts, plain_values, max_size=4)
times = st.integers(0, 2**52)
chains = st.lists(st.sampled_from(["utf-8", "json", "cipher+aes-256-cbc", "vcdiff"]), min_size=1, max_size=3)
encodings = st.none() | chains.map("/".join)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


versions = st.builds(
    Version,
    serial=names,
    timestamp=maybe(times),
    client_id=maybe(texts),
    description=maybe(texts),
    metadata=maybe(st.dictionaries(texts, texts, max_size=3)),
)

messages = st.builds(
    Message,
    id=maybe(texts),
    name=maybe(texts),
    data=maybe(texts | st.binary(max_size=20)),
    encoding=encodings,
    client_id=maybe(texts),
    connection_id=maybe(texts),
    connection_key=maybe(texts),
    timestamp=maybe(times),
    extras=maybe(extras),
    serial=maybe(texts),
    action=maybe(st.sampled_from(MessageAction)),
    version=maybe(versions),
    annotations=maybe(extras),
)
