"""Publishing, changing and reading messages of a session on a real Redis."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from selfhost_transport.errors import BadRequest, ContinuityLost, InvalidArgument, MessageTooLarge, NotFound
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.entries import Appended, Created, MessageOperation, Ref, Replaced
from selfhost_transport.store.history import Query
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position


async def publish_text(sessions: SessionStore, session: str, *texts: str) -> list[Ref]:
    refs = []
    for text in texts:
        published = await sessions.publish(session, [Message(name="n", data=text, extras={"k": "v"})])
        refs.append(Ref(published.position))
    return refs


async def test_an_unused_session_has_a_position_before_everything(sessions: SessionStore) -> None:
    head = await sessions.open("room")
    assert head.position == Position.ZERO
    published = await sessions.publish("room", [Message(data="a")])
    assert published.epoch == head.epoch
    assert published.position > head.position
    assert (await sessions.read_after("room", head.position)) == [
        Created(published.position, (Message(data="a"),))
    ]


async def test_a_repeated_publish_id_is_written_once(sessions: SessionStore) -> None:
    first = await sessions.publish("room", [Message(data="a")], publish_id="id")
    again = await sessions.publish("room", [Message(data="other")], publish_id="id")
    assert (again.position, again.repeated) == (first.position, True)
    assert len((await sessions.history.page("room", Query())).messages) == 1


async def test_appends_grow_one_message(sessions: SessionStore) -> None:
    (ref,) = await publish_text(sessions, "room", "Hello")
    one = await sessions.append("room", ref, " wör")
    two = await sessions.append(
        "room", ref, "ld", extras={"k": "2"}, operation=MessageOperation(client_id="c")
    )
    message = await sessions.history.message("room", ref)
    assert (message.data, message.name, message.extras) == ("Hello wörld", "n", {"k": "2"})
    assert message.action is MessageAction.UPDATE
    assert message.version is not None and message.serial is not None
    assert message.version.serial > message.serial
    assert (message.version.timestamp, message.version.client_id) == (two.ms, "c")
    entries = await sessions.read_after("room", ref.position)
    assert entries == [
        Appended(one, ref, " wör", None, MessageOperation()),
        Appended(two, ref, "ld", {"k": "2"}, MessageOperation(client_id="c")),
    ]


async def test_appending_needs_the_same_kind_of_data(sessions: SessionStore) -> None:
    (ref,) = await publish_text(sessions, "room", "text")
    with pytest.raises(BadRequest) as refused:
        await sessions.append("room", ref, b"bytes")
    assert refused.value.info.code == 40013
    with pytest.raises(NotFound):
        await sessions.append("room", Ref(Position(1, 0)), "x")
    limited = SessionStore(sessions.redis, sessions.keys, StoreOptions(max_message_bytes=6))
    with pytest.raises(MessageTooLarge):
        await limited.append("room", ref, "too much")
    assert (await sessions.history.message("room", ref)).data == "text"


async def test_update_keeps_what_it_does_not_name_and_delete_keeps_the_data(sessions: SessionStore) -> None:
    (ref,) = await publish_text(sessions, "room", "first")
    await sessions.replace(
        "room", ref, MessageAction.UPDATE, Message(data="second"), MessageOperation("a", "why")
    )
    updated = await sessions.history.message("room", ref)
    assert (updated.data, updated.name, updated.extras) == ("second", "n", {"k": "v"})
    await sessions.append("room", ref, "!")
    await sessions.replace("room", ref, MessageAction.DELETE, Message(), MessageOperation("b"))
    deleted = await sessions.history.message("room", ref)
    assert (deleted.data, deleted.action) == ("second!", MessageAction.DELETE)
    chain = await sessions.history.versions("room", ref)
    assert [version.action for version in chain] == [
        MessageAction.CREATE,
        MessageAction.UPDATE,
        MessageAction.DELETE,
    ]
    assert [version.data for version in chain] == ["first", "second", "second!"]
    entries = await sessions.read_after("room", ref.position)
    assert [type(entry) for entry in entries] == [Replaced, Appended, Replaced]


async def test_racing_updates_are_all_applied(sessions: SessionStore) -> None:
    (ref,) = await publish_text(sessions, "room", "0")
    changes = [
        sessions.replace("room", ref, MessageAction.UPDATE, Message(data=str(n)), MessageOperation())
        for n in range(8)
    ]
    positions = await asyncio.gather(*changes)
    assert len(set(positions)) == 8
    newest = await sessions.history.message("room", ref)
    assert newest.version is not None and newest.version.timestamp == max(positions).ms


async def test_binary_data_stays_binary(sessions: SessionStore) -> None:
    published = await sessions.publish("room", [Message(data=b"\xff\x00", encoding="cipher")])
    ref = Ref(published.position)
    await sessions.append("room", ref, b"\x80", encoding="cipher")
    message = await sessions.history.message("room", ref)
    assert (message.data, message.encoding) == (b"\xff\x00\x80", "cipher")


@pytest.mark.parametrize("forwards", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_join_without_gap_or_overlap(sessions: SessionStore, limit: int, forwards: bool) -> None:
    await publish_text(sessions, "room", "0", "1")
    await sessions.publish("room", [Message(data=text) for text in ("2", "3", "4")])
    await publish_text(sessions, "room", "5", "6")
    seen: list[str] = []
    query: Query | None = Query(limit=limit, forwards=forwards)
    while query is not None:
        page = await sessions.history.page("room", query)
        assert 0 < len(page.messages) <= limit
        seen += [str(message.data) for message in page.messages]
        query = replace(query, cursor=page.next_cursor) if page.next_cursor else None
    assert seen == (list("0123456") if forwards else list("6543210"))


async def test_a_bound_includes_its_own_publish(sessions: SessionStore) -> None:
    refs = await publish_text(sessions, "room", "0", "1", "2")
    page = await sessions.history.page("room", Query(until=refs[1].position))
    assert [message.data for message in page.messages] == ["1", "0"]


async def test_a_page_is_not_cut_inside_a_run(sessions: SessionStore) -> None:
    async def of_run(run: str, text: str) -> None:
        extras = {"ai": {"transport": {"run-id": run}}}
        await sessions.publish("room", [Message(data=text, extras=extras)], groups=[run])

    await publish_text(sessions, "room", "before")
    await of_run("a", "a0")
    await of_run("b", "b0")
    await of_run("a", "a1")
    await of_run("b", "b1")
    page = await sessions.history.page("room", Query(limit=1))
    assert [message.data for message in page.messages] == ["b1", "a1", "b0", "a0"]
    assert page.next_cursor is not None
    rest = await sessions.history.page("room", Query(limit=1, cursor=page.next_cursor))
    assert [message.data for message in rest.messages] == ["before"]
    assert rest.next_cursor is None


async def test_ephemeral_messages_are_not_in_the_history(sessions: SessionStore) -> None:
    await sessions.publish("room", [Message(data="gone")], ephemeral=True)
    assert (await sessions.history.page("room", Query())).messages == []


async def test_an_empty_publish_is_refused(sessions: SessionStore) -> None:
    with pytest.raises(InvalidArgument):
        await sessions.publish("room", [])


async def test_announcements_name_their_predecessor(sessions: SessionStore, redis_url: str) -> None:
    received: list[bytes] = []
    arrived = asyncio.Event()

    def on_message(payload: bytes) -> None:
        received.append(payload)
        if len(received) == 3:
            arrived.set()

    subscriber = Subscriber(redis_url)
    await subscriber.subscribe(sessions.keys.channel("room"), on_message)
    (ref,) = await publish_text(sessions, "room", "0")
    await sessions.append("room", ref, "1")
    await publish_text(sessions, "room", "2")
    await asyncio.wait_for(arrived.wait(), 5)
    await subscriber.close()
    links = [payload.split(b" ", 2)[:2] for payload in received]
    assert links[0][1] == b"0-0"
    assert [previous for _, previous in links[1:]] == [position for position, _ in links[:-1]]


async def test_a_position_older_than_the_log_is_explicit(sessions: SessionStore) -> None:
    refs = await publish_text(sessions, "room", "0", "1")
    log = sessions.keys.base_of("room") + "l:room"
    await sessions.redis.command("DEL", log)
    assert await sessions.read_after("room", refs[-1].position) == []
    with pytest.raises(ContinuityLost):
        await sessions.read_after("room", refs[0].position)
    third = await sessions.publish("room", [Message(data="2")])
    assert [entry.position for entry in await sessions.read_after("room", refs[-1].position)] == [
        third.position
    ]
    with pytest.raises(ContinuityLost):
        await sessions.read_after("room", refs[0].position)


async def test_positions_grow_when_the_clock_steps_back(sessions: SessionStore) -> None:
    base = sessions.keys.base_of("room")
    (first,) = await publish_text(sessions, "room", "0")
    ahead = Position(first.position.ms + 3_600_000, 985)
    await sessions.redis.command("XSETID", f"{base}l:room", ahead.stream_id)
    await sessions.redis.command("SET", f"{base}p:room", ahead.stream_id)
    positions = [(await sessions.publish("room", [Message(data="x")])).position for _ in range(20)]
    await sessions.redis.command("DEL", f"{base}l:room")
    positions.append((await sessions.publish("room", [Message(data="y")])).position)
    assert positions == sorted(set(positions)) and positions[0] > ahead
    assert all(position.counter <= 999 for position in positions)
