"""Another service's history in a session, at positions of the past, on a real Redis."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import Conflict
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import MessageOperation
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_import import ImportedMessage, ImportMark, ImportState, SessionImports
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position

SESSION = "chat:moved"
SOURCE = "rest.example.com app key"
# Some years ago.
BEGIN_MS = 1_500_000_000_000


@pytest.fixture
def imports(connection: RedisConnection, keys: Keyspace) -> SessionImports:
    return SessionImports(connection, keys, StoreOptions())


def mark(number: int) -> ImportMark:
    return ImportMark(Position(BEGIN_MS + number, 0), SOURCE, f"serial-{number}")


async def test_messages_stand_in_the_past_in_the_order_of_the_import(
    imports: SessionImports, sessions: SessionStore
) -> None:
    assert await imports.state(SESSION) == ImportState(None, "", Position.ZERO)
    epoch = await imports.write(SESSION, [ImportedMessage(Message(name="n", data="one"))], None, mark(1))
    several = [
        ImportedMessage(Message(name="n", data="two")),
        ImportedMessage(Message(name="n", data=b"\x00three")),
    ]
    assert await imports.write(SESSION, several, mark(1), mark(2)) == epoch
    state = await imports.state(SESSION)
    assert (state.mark, state.epoch, state.head) == (mark(2), epoch, mark(2).position)
    assert not state.is_continued
    found = (await sessions.history.page(SESSION, Query(forwards=True))).messages
    assert [message.data for message in found] == ["one", "two", b"\x00three"]
    assert [message.timestamp for message in found] == [BEGIN_MS + 1, BEGIN_MS + 2, BEGIN_MS + 2]
    assert {message.action for message in found} == {MessageAction.CREATE}


async def test_what_was_changed_there_has_its_last_version(
    imports: SessionImports, sessions: SessionStore
) -> None:
    changed = Position(BEGIN_MS + 900, 3)
    operation = MessageOperation(client_id="ann", description="typing error", metadata={"by": "hand"})
    past = [
        ImportedMessage(Message(name="kept", data="as it was")),
        ImportedMessage(
            Message(name="edited", data="new", client_id="ann", extras={"k": 1}), changed, operation
        ),
        ImportedMessage(Message(name="binary", data=b"\xff\x00", encoding="cipher"), changed, operation),
        ImportedMessage(Message(name="gone", data=None), changed, operation, deleted=True),
    ]
    await imports.write(SESSION, past, None, mark(1))
    kept, edited, binary, gone = (await sessions.history.page(SESSION, Query(forwards=True))).messages
    assert (kept.data, kept.action) == ("as it was", MessageAction.CREATE)
    assert (edited.data, edited.name, edited.extras) == ("new", "edited", {"k": 1})
    assert edited.action is binary.action is MessageAction.UPDATE and gone.action is MessageAction.DELETE
    assert (binary.data, binary.encoding) == (b"\xff\x00", "cipher")
    for one in (edited, binary, gone):
        assert one.version is not None
        assert (one.version.timestamp, one.version.client_id) == (BEGIN_MS + 900, "ann")
        assert (one.version.description, one.version.metadata) == ("typing error", {"by": "hand"})


async def test_a_second_import_at_the_same_time_is_refused(
    imports: SessionImports, sessions: SessionStore
) -> None:
    await imports.write(SESSION, [ImportedMessage(Message(data="one"))], None, mark(1))
    await imports.write(SESSION, [ImportedMessage(Message(data="two"))], mark(1), mark(2))
    with pytest.raises(Conflict, match="another import"):
        await imports.write(SESSION, [ImportedMessage(Message(data="two"))], mark(1), mark(2))
    with pytest.raises(Conflict, match="another import"):
        await imports.write(SESSION, [ImportedMessage(Message(data="one"))], None, mark(1))
    assert len((await sessions.history.page(SESSION, Query())).messages) == 2


async def test_nothing_is_put_before_what_was_said_here(
    imports: SessionImports, sessions: SessionStore
) -> None:
    await imports.write(SESSION, [ImportedMessage(Message(data="one"))], None, mark(1))
    here = await sessions.publish(SESSION, [Message(data="here")])
    state = await imports.state(SESSION)
    assert state.is_continued and (state.mark, state.head) == (mark(1), here.position)
    with pytest.raises(Conflict, match="was written to"):
        await imports.write(SESSION, [ImportedMessage(Message(data="two"))], mark(1), mark(2))
    found = (await sessions.history.page(SESSION, Query(forwards=True))).messages
    assert [message.data for message in found] == ["one", "here"]


async def test_a_session_that_was_never_imported_takes_no_import(
    imports: SessionImports, sessions: SessionStore
) -> None:
    await sessions.publish(SESSION, [Message(data="here")])
    assert (await imports.state(SESSION)).is_continued
    with pytest.raises(Conflict, match="was written to"):
        await imports.write(SESSION, [ImportedMessage(Message(data="one"))], None, mark(1))


@pytest.mark.parametrize("source", ["host app", "host with many words", "ünï 🙂"])
def test_a_mark_is_read_as_it_was_written(source: str) -> None:
    made = ImportMark(Position(BEGIN_MS, 7), source, "01500000000000-000@abc:000")
    assert ImportMark.unpack(made.pack()) == made
