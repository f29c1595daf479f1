"""Annotations and the summaries they are folded into, on a real Redis (protocol section 14.1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from selfhost_transport.errors import BadRequest, NotFound
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.annotations import MAX_LISTED, MAX_NAMES, AnnotationStore
from selfhost_transport.store.entries import Annotated, MessageOperation, Ref, Summarised, unpack_entry
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.retention import Retention
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.actions import AnnotationAction, MessageAction
from selfhost_transport.wire.annotation import Annotation
from selfhost_transport.wire.codec import Format, pack
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position
from selfhost_transport.wire.summary import method_of
from tests.processes import wait_until

VIEW = Annotation(action=AnnotationAction.CREATE, type="views:total.v1")


@pytest.fixture
def marks(connection: RedisConnection, keys: Keyspace) -> AnnotationStore:
    return AnnotationStore(connection, keys)


class Bench:
    """One message, and what is made of annotations to it."""

    def __init__(self, sessions: SessionStore, annotations: AnnotationStore, ref: Ref) -> None:
        self.sessions = sessions
        self.annotations = annotations
        self.ref = ref

    async def add(
        self, kind: str, client: str | None, name: str | None = None, count: int | None = None
    ) -> None:
        await self._give(AnnotationAction.CREATE, kind, client, name, count)

    async def take(self, kind: str, client: str | None, name: str | None = None) -> None:
        await self._give(AnnotationAction.DELETE, kind, client, name, None)

    async def _give(
        self, action: AnnotationAction, kind: str, client: str | None, name: str | None, count: int | None
    ) -> None:
        annotation = Annotation(action=action, type=kind, client_id=client, name=name, count=count)
        await self.annotations.give("room", [(self.ref, annotation)])

    async def summary(self) -> Any:
        message = await self.sessions.history.message("room", self.ref)
        return message.annotations["summary"] if message.annotations else None


@pytest.fixture
async def bench(sessions: SessionStore, marks: AnnotationStore) -> Bench:
    published = await sessions.publish("room", [Message(name="n", data="a"), Message(name="n", data="b")])
    return Bench(sessions, marks, Ref(published.position, 1))


async def test_total_counts_everything(bench: Bench) -> None:
    kind = "views:total.v1"
    for client in ("alice", "alice", None, None):
        await bench.add(kind, client)
    assert await bench.summary() == {kind: {"total": 4}}
    await bench.take(kind, "bob")
    await bench.take(kind, "alice")
    await bench.take(kind, None)
    assert await bench.summary() == {kind: {"total": 2}}


async def test_flag_counts_clients(bench: Bench) -> None:
    kind = "seen:flag.v1"
    for client in ("alice", "bob", "alice"):
        await bench.add(kind, client)
    assert await bench.summary() == {kind: {"total": 2, "clientIds": ["alice", "bob"], "clipped": False}}
    await bench.take(kind, "alice")
    await bench.take(kind, "alice")
    assert await bench.summary() == {kind: {"total": 1, "clientIds": ["bob"], "clipped": False}}
    await bench.take(kind, "bob")
    assert await bench.summary() == {kind: {"total": 0, "clientIds": [], "clipped": False}}


async def test_distinct_counts_clients_by_name(bench: Bench) -> None:
    kind = "reaction:distinct.v1"
    for client, name in [("alice", "👍"), ("bob", "👍"), ("alice", "👎"), ("alice", "👍")]:
        await bench.add(kind, client, name)
    up = {"total": 2, "clientIds": ["alice", "bob"], "clipped": False}
    down = {"total": 1, "clientIds": ["alice"], "clipped": False}
    assert await bench.summary() == {kind: {"👍": up, "👎": down}}
    await bench.take(kind, "alice", "👎")
    assert await bench.summary() == {kind: {"👍": up}}


async def test_unique_moves_a_client_to_its_last_name(bench: Bench) -> None:
    kind = "vote:unique.v1"
    for client, name in [("alice", "a"), ("bob", "a"), ("alice", "b")]:
        await bench.add(kind, client, name)
    one = {"total": 1, "clipped": False}
    assert await bench.summary() == {
        kind: {"a": {**one, "clientIds": ["bob"]}, "b": {**one, "clientIds": ["alice"]}}
    }
    await bench.take(kind, "alice", "a")
    await bench.take(kind, "alice", "b")
    await bench.add(kind, "alice", "a")
    assert await bench.summary() == {
        kind: {"a": {"total": 2, "clientIds": ["bob", "alice"], "clipped": False}}
    }


async def test_multiple_adds_up(bench: Bench) -> None:
    kind = "claps:multiple.v1"
    await bench.add(kind, "alice", "clap", 3)
    await bench.add(kind, "alice", "clap")
    await bench.add(kind, "bob", "clap", 2)
    await bench.add(kind, None, "clap", 5)
    shown = {
        "total": 11,
        "clientIds": {"alice": 4, "bob": 2},
        "clipped": False,
        "totalUnidentified": 5,
        "totalClientIds": 2,
    }
    assert await bench.summary() == {kind: {"clap": shown}}
    await bench.take(kind, None, "clap")
    await bench.take(kind, "alice", "clap")
    shown |= {"total": 7, "clientIds": {"bob": 2}, "totalClientIds": 1}
    assert await bench.summary() == {kind: {"clap": shown}}


async def test_the_summary_precedes_the_annotation_and_stays_with_the_message(bench: Bench) -> None:
    before = (await bench.sessions.open("room")).position
    await bench.add("seen:flag.v1", "alice")
    summarised, annotated = await bench.sessions.read_after("room", before)
    assert isinstance(summarised, Summarised) and isinstance(annotated, Annotated)
    assert (summarised.ref, annotated.ref) == (bench.ref, bench.ref)
    shown = {"seen:flag.v1": {"total": 1, "clientIds": ["alice"], "clipped": False}}
    page = await bench.sessions.history.page("room", Query(forwards=True))
    assert [message.annotations for message in page.messages] == [None, {"summary": shown}]
    assert page.messages[1].action is MessageAction.CREATE
    # Appends and updates of a message that was annotated before find its data.
    await bench.sessions.append("room", bench.ref, "!")
    await bench.sessions.replace(
        "room", bench.ref, MessageAction.UPDATE, Message(name="m"), MessageOperation()
    )
    message = await bench.sessions.history.message("room", bench.ref)
    assert (message.name, message.data, message.annotations) == ("m", "b!", {"summary": shown})


async def test_a_deleted_message_is_annotated_without_a_word(bench: Bench) -> None:
    await bench.sessions.replace("room", bench.ref, MessageAction.DELETE, Message(), MessageOperation())
    before = (await bench.sessions.open("room")).position
    await bench.add("seen:flag.v1", "alice")
    assert [type(entry) for entry in await bench.sessions.read_after("room", before)] == [Annotated]
    assert (await bench.summary())["seen:flag.v1"]["total"] == 1


async def test_a_repeat_is_written_once(bench: Bench) -> None:
    annotation = Annotation(action=AnnotationAction.CREATE, type="views:total.v1")
    first, again = [
        await bench.annotations.give("room", [(bench.ref, annotation)] * 2, publish_id="id") for _ in range(2)
    ]
    assert first == again
    assert len(set(first.serials)) == 2
    assert await bench.summary() == {"views:total.v1": {"total": 2}}


async def test_annotations_are_listed_in_order(bench: Bench) -> None:
    for client in ("alice", "bob", "carol"):
        await bench.add("seen:flag.v1", client)
    listed = await bench.annotations.page("room", bench.ref, limit=2)
    assert [annotation.client_id for annotation in listed] == ["alice", "bob"]
    epoch = (await bench.sessions.open("room")).epoch
    assert all(annotation.message_serial == bench.ref.serial(epoch) for annotation in listed)
    assert listed[0].serial is not None and bench.ref.serial(epoch) < listed[0].serial
    assert await bench.annotations.page("room", Ref(Position(1, 0))) == []


async def test_what_cannot_be_annotated(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.annotations.give("room", [(Ref(bench.ref.position, 7), VIEW)])
    for text in ("", "views", "views:total", "views:total.v2", ":total.v1", None):
        with pytest.raises(BadRequest):
            method_of(text)


async def test_several_at_once_are_written_together_or_not_at_all(bench: Bench) -> None:
    other = Ref(bench.ref.position, 0)
    mine = Annotation(action=AnnotationAction.CREATE, type="vote:unique.v1", client_id="alice", name="a")
    before = (await bench.sessions.open("room")).position
    given = await bench.annotations.give(
        "room",
        [
            (bench.ref, VIEW),
            (other, VIEW),
            (bench.ref, mine),
            (bench.ref, replace(mine, name="b")),
            (bench.ref, replace(mine, action=AnnotationAction.DELETE, name="b")),
            (bench.ref, replace(mine, name="c")),
        ],
    )
    entries = await bench.sessions.read_after("room", before)
    assert [(type(entry), entry.ref) for entry in entries[:2] if isinstance(entry, Summarised)] == [
        (Summarised, bench.ref),
        (Summarised, other),
    ]
    assert [entry.position for entry in entries[2:]] == [*given.positions]
    chosen = {"c": {"total": 1, "clientIds": ["alice"], "clipped": False}}
    assert await bench.summary() == {"views:total.v1": {"total": 1}, "vote:unique.v1": chosen}
    await bench.take("vote:unique.v1", "alice", "c")
    after = (await bench.sessions.open("room")).position
    with pytest.raises(NotFound):
        await bench.annotations.give(
            "room", [(bench.ref, VIEW), (Ref(Position(1, 0)), VIEW)], publish_id="id"
        )
    names = [
        (bench.ref, replace(mine, type="tag:distinct.v1", name=f"n{index}")) for index in range(MAX_NAMES + 1)
    ]
    with pytest.raises(BadRequest):
        await bench.annotations.give("room", names)
    assert await bench.sessions.read_after("room", after) == []
    assert await bench.summary() == {"views:total.v1": {"total": 1}}


async def test_summaries_are_bounded(bench: Bench) -> None:
    for index in range(MAX_LISTED + 1):
        await bench.add("seen:flag.v1", f"c{index}")
    shown = (await bench.summary())["seen:flag.v1"]
    assert (shown["total"], len(shown["clientIds"]), shown["clipped"]) == (MAX_LISTED + 1, MAX_LISTED, True)
    await bench.take("seen:flag.v1", f"c{MAX_LISTED}")
    assert (await bench.summary())["seen:flag.v1"]["clipped"] is False
    for index in range(MAX_NAMES):
        await bench.add("tag:distinct.v1", "alice", f"n{index}")
    with pytest.raises(BadRequest):
        await bench.add("tag:distinct.v1", "alice", "one too many")


async def test_annotations_leave_with_their_message(connection: RedisConnection, keys: Keyspace) -> None:
    options = StoreOptions(retention_of=lambda session: 1)
    sessions, annotations = (
        SessionStore(connection, keys, options),
        AnnotationStore(connection, keys, options),
    )
    ref = Ref((await sessions.publish("room", [Message(data="a")])).position)
    await annotations.give("room", [(ref, Annotation(type="seen:flag.v1", client_id="alice"))])
    await wait_until(Retention(connection, keys, options).sweep)
    base = keys.base_of("room")
    for letter in "mbz":
        assert await connection.command("EXISTS", f"{base}{letter}:{ref}:room") == 0


def test_a_summary_that_was_written_without_a_name_is_still_read() -> None:
    line = ["seen:flag.v1", "", 1, 0, 1, [["ann", 1]]]
    for lines in ([], [line], [line, line], [line, line, line]):
        entry = unpack_entry(Position(7, 0), b"S7-0:0\n" + pack(lines, Format.MSGPACK))
        assert isinstance(entry, Summarised)
        assert (len(entry.tallies), entry.name) == (len(lines), None)
