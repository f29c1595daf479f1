"""What is read at once is bounded in bytes as well as in number; nothing is lost between the pages (P14)."""

from __future__ import annotations

import pytest

from gateway.rest.version_window import VersionWindow
from selfhost_transport.store import history
from selfhost_transport.store.entries import MessageOperation, Ref
from selfhost_transport.store.history import Page, Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message

MOST = 100_000


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_PAGE_BYTES", MOST)


async def grown(sessions: SessionStore, size: int) -> Ref:
    """A message that appends have made long."""
    ref = Ref((await sessions.publish("room", [Message(name="n", data="")])).position)
    await sessions.append("room", ref, "x" * size)
    return ref


def size_of(page: Page) -> int:
    return sum(len(message.data or "") for message in page.messages)


@pytest.mark.parametrize("forwards", [True, False])
@pytest.mark.parametrize("by_append", [True, False])
async def test_pages_of_long_messages_are_small_and_whole(
    sessions: SessionStore, forwards: bool, by_append: bool
) -> None:
    for number in range(10):
        if by_append:
            await grown(sessions, 40_000 + number)
        else:
            await sessions.publish("room", [Message(name="n", data="x" * (40_000 + number))])
    query, seen = Query(limit=100, forwards=forwards), []
    for _ in range(20):
        page = await sessions.history.page("room", query)
        assert size_of(page) <= MOST
        seen += [len(message.data or "") for message in page.messages]
        if page.next_cursor is None:
            break
        query = Query(limit=100, forwards=forwards, cursor=page.next_cursor)
    expected = [40_000 + number for number in range(10)]
    assert seen == (expected if forwards else expected[::-1])


async def test_one_message_beyond_the_limit_is_a_page_of_its_own(sessions: SessionStore) -> None:
    await grown(sessions, 10)
    await grown(sessions, 3 * MOST)
    await grown(sessions, 10)
    sizes, query = [], Query(limit=100)
    while True:
        page = await sessions.history.page("room", query)
        sizes.append([len(message.data or "") for message in page.messages])
        if page.next_cursor is None:
            break
        query = Query(limit=100, cursor=page.next_cursor)
    assert sizes == [[10], [3 * MOST], [10]]


async def test_versions_are_read_a_few_at_a_time(sessions: SessionStore) -> None:
    ref = Ref((await sessions.publish("room", [Message(name="n", data="0")])).position)
    for number in range(1, 80):
        await sessions.replace(
            "room", ref, MessageAction.UPDATE, Message(data=str(number)), MessageOperation()
        )
    slices = [[one.data for one in some] async for some in sessions.history.version_slices("room", ref)]
    assert max(map(len, slices)) <= history.VERSIONS_PER_READ
    assert [data for some in slices for data in some] == [str(number) for number in range(80)]
    assert await sessions.history.version_count("room", ref) == 80


@pytest.mark.parametrize("forwards", [True, False])
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_pages_of_versions_hold_all_of_them_once(forwards: bool, limit: int) -> None:
    versions = [Message(data=str(number) * 30) for number in range(10, 60)]
    expected = versions if forwards else versions[::-1]
    seen: list[Message] = []
    while len(seen) < len(versions):
        window = VersionWindow(len(seen), limit, len(versions), forwards=forwards, max_bytes=300)
        for start in range(0, len(versions), 7):
            window.take(versions[start : start + 7])
        assert 1 <= len(window.page) <= min(limit, 5)
        seen += window.page
    assert seen == expected
