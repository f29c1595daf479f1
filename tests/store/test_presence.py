"""Presence on a real Redis: members, their events, and what becomes of them when a socket or a process dies."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from typing import Any

import pytest

from selfhost_transport.errors import BadRequest, InvalidArgument
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import Entry, PresenceChanged
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.presence import LEAVES_PER_STEP, NO_HOLDER, Holder, PresenceStore
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.actions import PresenceAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.serial import Position

ENTER, LEAVE, UPDATE = PresenceAction.ENTER, PresenceAction.LEAVE, PresenceAction.UPDATE
FIRST = Holder("conn", "socket-1", "node-1", remain_ms=0)
SECOND = Holder("conn", "socket-2", "node-2", remain_ms=0)
serials = itertools.count()


@pytest.fixture
def presence(connection: RedisConnection, keys: Keyspace) -> PresenceStore:
    return PresenceStore(connection, keys)


def operation(
    action: PresenceAction,
    client_id: str = "ann",
    data: str | bytes | None = None,
    presence_id: str = "",
    extras: dict[str, Any] | None = None,
) -> PresenceMessage:
    known = presence_id or f"conn:{next(serials)}:0"
    return PresenceMessage(action, known, client_id, data=data, extras=extras)


async def enter(presence: PresenceStore, session: str, *clients: str, holder: Holder = FIRST) -> None:
    await presence.change(
        session, holder, [operation(ENTER, client, f"data of {client}") for client in clients]
    )


async def events(sessions: SessionStore, session: str) -> list[PresenceMessage]:
    """All presence events of a session, from its log."""
    entries: list[Entry] = await sessions.read_after(session, Position.ZERO)
    return [event for entry in entries if isinstance(entry, PresenceChanged) for event in entry.presence]


def reported(
    found: list[PresenceMessage],
) -> list[tuple[PresenceAction | None, str | None, str | bytes | None]]:
    return [(event.action, event.client_id, event.data) for event in found]


async def test_enter_update_and_leave(presence: PresenceStore, sessions: SessionStore) -> None:
    entered = await presence.change(
        "room", FIRST, [operation(ENTER, data="thinking", presence_id="conn:1:0")]
    )
    assert (entered.changes, await presence.count("room")) == (1, 1)
    updated = await presence.change(
        "room", FIRST, [operation(UPDATE, data="writing", presence_id="conn:2:0")]
    )
    assert entered.position is not None and updated.position is not None
    assert await presence.members("room") == [
        PresenceMessage(
            PresenceAction.PRESENT, "conn:2:0", "ann", "conn", "writing", timestamp=updated.position.ms
        )
    ]
    await presence.change("room", FIRST, [operation(LEAVE)])
    assert await presence.members("room") == []
    assert reported(await events(sessions, "room")) == [
        (ENTER, "ann", "thinking"),
        (UPDATE, "ann", "writing"),
        (LEAVE, "ann", "writing"),
    ]


async def test_operations_share_the_order_of_messages(
    presence: PresenceStore, sessions: SessionStore
) -> None:
    before = await sessions.publish("room", [Message(data="a")])
    changed = await presence.change("room", FIRST, [operation(ENTER)])
    after = await sessions.publish("room", [Message(data="b")])
    assert changed.position is not None
    assert before.position < changed.position < after.position
    assert changed.epoch == before.epoch
    assert len((await sessions.history.page("room", Query())).messages) == 2


async def test_what_a_member_brings_is_kept_as_it_came(
    presence: PresenceStore, sessions: SessionStore
) -> None:
    binary = PresenceMessage(
        ENTER, "conn:1:0", "añn b", data=b"\x00\xff", encoding="cipher", extras={"k": [1]}
    )
    await presence.change("room", FIRST, [binary])
    await presence.leave("room", "conn")
    left = (await events(sessions, "room"))[-1]
    assert (left.client_id, left.data, left.encoding, left.extras) == (
        "añn b",
        b"\x00\xff",
        "cipher",
        {"k": [1]},
    )
    assert left.connection_id == "conn"
    assert left.id is not None and not left.id.startswith("conn")


async def test_update_of_a_stranger_enters_and_enter_of_a_member_stays_enter(
    presence: PresenceStore, sessions: SessionStore
) -> None:
    await presence.change("room", FIRST, [operation(UPDATE, data="1")])
    await presence.change("room", FIRST, [operation(ENTER, data="2")])
    assert reported(await events(sessions, "room")) == [(ENTER, "ann", "1"), (ENTER, "ann", "2")]


async def test_leave_of_a_stranger_is_silent_and_leave_with_data_carries_it(
    presence: PresenceStore, sessions: SessionStore
) -> None:
    nothing = await presence.change("room", FIRST, [operation(LEAVE)])
    assert (nothing.position, nothing.changes) == (None, 0)
    await enter(presence, "room", "ann")
    await presence.change("room", FIRST, [operation(LEAVE, data="")])
    assert reported(await events(sessions, "room")) == [(ENTER, "ann", "data of ann"), (LEAVE, "ann", "")]


@pytest.mark.parametrize("data", ["text", b"\x00\xff"])
async def test_a_leave_has_extras_of_its_own_beside_the_last_data(
    presence: PresenceStore, sessions: SessionStore, data: str | bytes
) -> None:
    await presence.change("room", FIRST, [operation(ENTER, data=data, extras={"headers": {"a": "old"}})])
    await presence.change("room", FIRST, [operation(LEAVE, extras={"headers": {"a": "new"}})])
    left = (await events(sessions, "room"))[-1]
    assert (left.action, left.data, left.extras) == (LEAVE, data, {"headers": {"a": "new"}})
    await presence.change("room", FIRST, [operation(ENTER)])
    await presence.change("room", FIRST, [operation(LEAVE, extras={"x": 1})])
    left = (await events(sessions, "room"))[-1]
    assert (left.data, left.extras, left.client_id, left.connection_id) == (None, {"x": 1}, "ann", "conn")


async def test_one_client_id_on_two_connections_is_two_members(presence: PresenceStore) -> None:
    other = Holder("other", "socket-3", "node-1")
    await enter(presence, "room", "ann")
    await enter(presence, "room", "ann", holder=other)
    assert [member.connection_id for member in await presence.members("room")] == ["conn", "other"]
    await presence.leave("room", "conn")
    assert [member.connection_id for member in await presence.members("room", client_id="ann")] == ["other"]
    assert await presence.members("room", client_id="ann", connection_id="conn") == []


async def test_the_same_id_again_changes_nothing(presence: PresenceStore, sessions: SessionStore) -> None:
    first = operation(ENTER, data="a")
    await presence.change("room", FIRST, [first])
    again = await presence.change("room", SECOND, [replace(first, data="b")])
    assert again.changes == 0
    assert reported(await events(sessions, "room")) == [(ENTER, "ann", "a")]


async def test_a_repeated_frame_is_applied_once_even_after_the_member_left(
    presence: PresenceStore, sessions: SessionStore
) -> None:
    frame = [operation(ENTER), operation(ENTER, "bob")]
    first = await presence.change("room", FIRST, frame, publish_id="conn:7:print")
    await presence.leave("room", "conn")
    again = await presence.change("room", FIRST, frame, publish_id="conn:7:print")
    assert (again.position, again.epoch, again.changes) == (first.position, first.epoch, 0)
    assert await presence.count("room") == 0


async def test_a_frame_is_one_entry_and_its_operations_apply_in_order(
    presence: PresenceStore, sessions: SessionStore
) -> None:
    frame = [operation(ENTER, f"c{n}") for n in range(20)]
    frame += [operation(LEAVE, "c0"), operation(UPDATE, "c1", "new")]
    changed = await presence.change("room", FIRST, frame)
    entries = await sessions.read_after("room", Position.ZERO)
    assert [entry.position for entry in entries] == [changed.position]
    assert changed.changes == 22
    members = await presence.members("room")
    assert len(members) == 19
    assert [member.data for member in members if member.client_id == "c1"] == ["new"]


async def test_what_is_refused_leaves_nothing(presence: PresenceStore) -> None:
    with pytest.raises(BadRequest) as anonymous:
        await presence.change("room", FIRST, [operation(ENTER), PresenceMessage(ENTER)])
    assert anonymous.value.info.code == 91000
    with pytest.raises(InvalidArgument):
        await presence.change("room", FIRST, [operation(PresenceAction.PRESENT)])
    with pytest.raises(InvalidArgument):
        await presence.change("room", FIRST, [])
    with pytest.raises(InvalidArgument):
        Holder("a b", "", "")
    assert await presence.count("room") == 0


async def test_the_number_of_members_is_bounded(connection: RedisConnection, keys: Keyspace) -> None:
    presence = PresenceStore(connection, keys, StoreOptions(max_members=2))
    await enter(presence, "room", "ann", "bob")
    with pytest.raises(BadRequest) as full:
        await enter(presence, "room", "cid")
    assert full.value.info.code == 91003
    await presence.change("room", FIRST, [operation(UPDATE, "bob", "still here")])
    assert await presence.count("room") == 2


async def test_a_lost_socket_gives_its_members_a_deadline(
    presence: PresenceStore, sessions: SessionStore
) -> None:
    patient = replace(FIRST, remain_ms=60_000)
    await enter(presence, "one", "ann")
    await enter(presence, "two", "ann", "bob")
    await enter(presence, "three", "cid", holder=replace(patient, connection_id="other"))
    assert await presence.lost(FIRST)
    assert await presence.lost(replace(patient, connection_id="other"))
    assert not await presence.lost(Holder("unknown", "", ""))
    assert await presence.sweep() == 3
    assert [await presence.count(session) for session in ("one", "two", "three")] == [0, 0, 1]
    assert [event.action for event in await events(sessions, "two")] == [ENTER, ENTER, LEAVE, LEAVE]
    assert await presence.sweep() == 0


async def test_a_deadline_is_kept_in_time(presence: PresenceStore) -> None:
    hurried = replace(FIRST, remain_ms=150)
    await enter(presence, "room", "ann", holder=hurried)
    started = time.monotonic()
    await presence.lost(hurried)
    assert await presence.sweep() == 0
    while await presence.sweep() == 0:
        await asyncio.sleep(0.01)  # until the deadline of a real clock has passed
    assert 0.14 <= time.monotonic() - started < 5


async def test_resuming_keeps_the_members_whatever_the_old_socket_does(presence: PresenceStore) -> None:
    await enter(presence, "room", "ann")
    await presence.lost(FIRST)
    assert await presence.claim(SECOND)
    assert await presence.sweep() == 0
    assert not await presence.lost(FIRST)
    assert await presence.leave_all(FIRST) == 0
    assert await presence.sweep() == 0
    assert await presence.count("room") == 1
    assert await presence.leave_all(SECOND) == 1
    assert not await presence.claim(SECOND)


async def test_re_entry_cancels_a_pending_leave(presence: PresenceStore, sessions: SessionStore) -> None:
    entered = operation(ENTER)
    await presence.change("room", FIRST, [entered])
    await presence.lost(FIRST)
    await presence.change("room", SECOND, [entered])
    assert (await presence.sweep(), await presence.count("room")) == (0, 1)
    assert len(await events(sessions, "room")) == 1


async def test_members_of_a_dead_process_leave_exactly_once(
    presence: PresenceStore, sessions: SessionStore, connection: RedisConnection, keys: Keyspace
) -> None:
    clients = [f"c{n}" for n in range(LEAVES_PER_STEP + 20)]
    await presence.renew("node-1")
    await enter(presence, "room", *clients)
    await enter(presence, "room", "ann", holder=Holder("alive", "socket-3", "node-2"))
    assert await presence.sweep() == 0
    await presence.retire("node-1")
    others = [PresenceStore(connection, keys) for _ in range(3)]
    assert sum(await asyncio.gather(*(store.sweep() for store in others))) == len(clients)
    left = [event.client_id for event in await events(sessions, "room") if event.action is LEAVE]
    assert sorted(str(client) for client in left) == sorted(clients)
    assert [member.client_id for member in await presence.members("room")] == ["ann"]


async def test_a_process_taken_for_dead_learns_of_it_and_claims_its_connections(
    connection: RedisConnection, keys: Keyspace
) -> None:
    presence = PresenceStore(connection, keys, StoreOptions(presence_lease_ms=60_000))
    patient = replace(FIRST, remain_ms=60_000)
    assert not await presence.renew("node-1")
    await enter(presence, "room", "ann", holder=patient)
    assert await presence.renew("node-1")
    await presence.retire("node-1")
    assert await presence.sweep() == 0
    assert not await presence.renew("node-1")
    assert await presence.claim(patient)
    await presence.retire("node-1")
    await presence.leave_all(patient)
    assert await presence.count("room") == 0


async def test_members_of_no_connection_stay(presence: PresenceStore) -> None:
    fixture = PresenceMessage(ENTER, None, "client_string", data="text", encoding=None)
    await presence.change("room", NO_HOLDER, [fixture])
    await presence.sweep()
    (member,) = await presence.members("room")
    assert (member.client_id, member.connection_id, member.id) == ("client_string", None, None)
    await presence.change("room", NO_HOLDER, [operation(LEAVE, "client_string")])
    assert await presence.count("room") == 0


async def test_the_history_has_every_event_and_pages(presence: PresenceStore) -> None:
    await enter(presence, "room", "a", "b", "c")
    await presence.change("room", FIRST, [operation(UPDATE, "b", "1")])
    await presence.leave("room", "conn")
    whole = (await presence.history("room", Query(forwards=True))).events
    assert [event.action for event in whole] == [ENTER] * 3 + [UPDATE] + [LEAVE] * 3
    assert all(event.id and event.timestamp for event in whole)
    for forwards in (True, False):
        paged, cursor = [], None
        while True:
            page = await presence.history("room", Query(limit=2, forwards=forwards, cursor=cursor))
            paged += page.events
            cursor = page.next_cursor
            if cursor is None:
                break
        assert paged == (whole if forwards else whole[::-1])
    assert (await presence.history("elsewhere", Query())).events == []


async def test_members_that_come_and_go_leave_no_residue(
    presence: PresenceStore, connection: RedisConnection, keys: Keyspace
) -> None:
    for number in range(100):
        holder = Holder(f"agent{number}", f"socket{number}", "node-1")
        await presence.change("room", holder, [PresenceMessage(ENTER, f"agent{number}:0:0", "agent")])
        await presence.change("room", holder, [PresenceMessage(LEAVE, f"agent{number}:1:0", "agent")])
    assert await presence.members("room") == []
    base = keys.base_of("room")
    for family in ("r:room", "d:node-1", "gone"):
        assert await connection.command("EXISTS", base + family) == 0
    assert await connection.command("EXISTS", *(f"{base}o:agent{n}" for n in range(100))) == 0
    assert await connection.command("EXISTS", *(f"{base}u:agent{n}:room" for n in range(100))) == 0


async def test_five_thousand_members(presence: PresenceStore, sessions: SessionStore) -> None:
    for start in range(0, 5000, 500):
        await enter(presence, "room", *(f"c{n:04d}" for n in range(start, start + 500)))
    members = await presence.members("room")
    assert [member.client_id for member in members] == [f"c{n:04d}" for n in range(5000)]
    await presence.lost(FIRST)
    assert await presence.sweep() == 5000
    assert await presence.count("room") == 0
