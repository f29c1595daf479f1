"""How much of a session one request reads: an unknown id in a long session does not fill the gateway's memory."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from gateway.commands import branch
from selfhost_transport.store.history import Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.message import Message

SESSION = "plain:long"


@pytest.mark.parametrize("heavy", ["data", "extras"])
async def test_reading_back_is_bounded_in_bytes(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, heavy: str
) -> None:
    text = "x" * 2_000
    for _ in range(30):
        await store.publish(
            SESSION, [Message(name="n", data=text) if heavy == "data" else Message(extras={"headers": text})]
        )
    monkeypatch.setattr(branch, "MAX_READ_BYTES", 20_000)
    monkeypatch.setattr(branch, "PAGE", 4)
    asked = 0

    def never() -> bool:
        nonlocal asked
        asked += 1
        return False

    page = await branch.read_back(store, SessionTree(SESSION), Query(limit=4), never)
    # 12 messages of 2,000 bytes are three pages: the third is enough, and no one is asked after it.
    assert (asked, page.next_cursor is None) == (2, False)


async def test_few_requests_at_a_time_read_far_back(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(40):
        await store.publish(SESSION, [Message(name="n", data="x" * 2_000)])
    monkeypatch.setattr(branch, "DEEP_BYTES", 10_000)
    monkeypatch.setattr(branch, "DEEP_READS", 1)
    monkeypatch.setattr(branch, "PAGE", 4)
    steps: list[str] = []

    async def read(name: str) -> None:
        def never() -> bool:
            steps.append(name)
            return False

        await branch.read_back(store, SessionTree(SESSION), Query(limit=4), never)

    await asyncio.gather(*map(read, "abc"))
    # Two pages are read beside each other; what comes after them is read by one after the other.
    deep = [name for at, name in enumerate(steps) if steps[:at].count(name) >= 2]
    assert [name for name, _ in itertools.groupby(deep)] == sorted(set(deep), key=deep.index)
    assert sorted(set(deep)) == ["a", "b", "c"]
    assert len(set(steps[:4])) > 1
