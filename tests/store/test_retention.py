"""Messages leave the history when their retention is over, with everything that belongs to them (HIS-6, P9)."""

from __future__ import annotations

import asyncio
import time

import pytest

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import MessageOperation, Ref
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.retention import PUBLISHES_PER_STEP, Retention
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_request import build_turn_request
from selfhost_transport.store.turn_store import TurnStore
from selfhost_transport.turns.inputs import InputIds, user_message
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position
from tests.processes import wait_until

KEPT_MS = 500


@pytest.fixture
def options() -> StoreOptions:
    return StoreOptions(
        window_ms=100, retention_of=lambda session: KEPT_MS if session.startswith("short") else 0
    )


@pytest.fixture
def sessions(connection: RedisConnection, keys: Keyspace, options: StoreOptions) -> SessionStore:
    return SessionStore(connection, keys, options)


@pytest.fixture
def retention(connection: RedisConnection, keys: Keyspace, options: StoreOptions) -> Retention:
    return Retention(connection, keys, options)


async def texts(sessions: SessionStore, session: str) -> list[str | bytes | None]:
    return [message.data for message in (await sessions.history.page(session, Query(forwards=True))).messages]


async def too_old(position: Position) -> None:
    """Wait until the retention of a message is over."""
    await wait_until(lambda: time.time() * 1000 > position.ms + KEPT_MS + 1)


async def swept(retention: Retention, count: int) -> None:
    """Sweep until this many publishes were taken."""
    taken = 0

    async def enough() -> bool:
        nonlocal taken
        taken += await retention.sweep()
        return taken >= count

    await wait_until(enough)
    assert taken == count


async def keys_of(sessions: SessionStore, session: str, ref: Ref) -> list[str]:
    base = sessions.keys.base_of(session)
    names = [f"{base}{letter}:{ref}:{session}" for letter in "mxv"]
    return [name for name in names if await sessions.redis.command("EXISTS", name)]


async def test_his_6_old_messages_leave_with_their_records(
    sessions: SessionStore, retention: Retention
) -> None:
    old = Ref(
        (await sessions.publish("short", [Message(data="a"), Message(data="b")], groups=["run"])).position, 1
    )
    await sessions.append("short", old, "!")
    await sessions.replace("short", old, MessageAction.UPDATE, Message(data="c"), MessageOperation())
    await sessions.publish("long", [Message(data="kept")])
    assert len(await keys_of(sessions, "short", old)) == 3
    assert await retention.sweep() == 0
    await too_old(old.position)
    new = await sessions.publish("short", [Message(data="new")], groups=["next"])
    await swept(retention, 1)
    assert await texts(sessions, "short") == ["new"]
    assert await keys_of(sessions, "short", old) == []
    groups = f"{sessions.keys.base_of('short')}g:short"
    assert await sessions.redis.command("HKEYS", groups) == [b"next"]
    page = await sessions.history.page("short", Query())
    assert page.truncated_at == old.position < new.position
    assert (await sessions.history.page("long", Query())).truncated_at is None
    assert await texts(sessions, "long") == ["kept"]


async def test_only_the_page_with_the_oldest_messages_has_the_trim_info(
    sessions: SessionStore, retention: Retention
) -> None:
    await too_old((await sessions.publish("short", [Message(data="gone")])).position)
    for text in "abc":
        await sessions.publish("short", [Message(data=text)])
    await swept(retention, 1)
    history = sessions.history
    newest = await history.page("short", Query(limit=2))
    assert (newest.truncated_at, len(newest.messages)) == (None, 2)
    assert (await history.page("short", Query(limit=2, cursor=newest.next_cursor))).truncated_at is not None
    assert (await history.page("short", Query(limit=2, forwards=True))).truncated_at is not None


async def test_an_empty_session_leaves_no_key_behind_but_its_epoch(
    sessions: SessionStore, retention: Retention
) -> None:
    published = await sessions.publish("short", [Message(data="a")], groups=["run"])
    await swept(retention, 1)
    base = sessions.keys.base_of("short")

    async def only_epoch() -> bool:
        await retention.sweep()
        found = [
            letter for letter in "hgklm" if await sessions.redis.command("EXISTS", f"{base}{letter}:short")
        ]
        return found == []

    await wait_until(only_epoch)
    assert await sessions.redis.command("PTTL", f"{base}s:short") > 0
    assert await sessions.redis.command("ZCARD", f"{base}retention") == 0
    again = await sessions.publish("short", [Message(data="b")])
    assert (again.epoch, again.position > published.position) == (published.epoch, True)
    assert await sessions.redis.command("PTTL", f"{base}p:short") == -1
    assert await texts(sessions, "short") == ["b"]


async def test_many_messages_go_in_short_steps(sessions: SessionStore, retention: Retention) -> None:
    count = PUBLISHES_PER_STEP * 2 + 1
    await asyncio.gather(*(sessions.publish("short", [Message(data="a")]) for _ in range(count)))
    await swept(retention, count)
    assert await texts(sessions, "short") == []


async def test_what_an_open_turn_is_about_stays(
    connection: RedisConnection,
    keys: Keyspace,
    options: StoreOptions,
    sessions: SessionStore,
    retention: Retention,
) -> None:
    before = await sessions.publish("short", [Message(data="before")])
    await too_old(before.position)
    turns = TurnStore(connection, keys, options)
    messages = user_message([TextPart("wait")], InputIds("m1", "e1"), client_id="alice")
    accepted = await turns.submit(build_turn_request("short", messages, agent="a"))
    await swept(retention, 1)
    await too_old(accepted.position)
    assert await retention.sweep() == 0
    page = await sessions.history.page("short", Query())
    assert [message.data for message in page.messages] == ["wait"]
    assert page.truncated_at == before.position


async def test_a_retention_that_is_lifted_keeps_what_is_left(
    connection: RedisConnection, keys: Keyspace, sessions: SessionStore, retention: Retention
) -> None:
    await sessions.publish("short", [Message(data="a")])
    keep_forever = SessionStore(connection, keys)
    last = await keep_forever.publish("short", [Message(data="b")])
    await too_old(last.position)
    assert await retention.sweep() == 0
    assert await texts(sessions, "short") == ["a", "b"]
    assert last.position > Position.ZERO
