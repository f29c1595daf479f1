"""Appends that are written as one: their versions, and repeats (protocol section 7.6, P5)."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import BadRequest, InvalidArgument
from selfhost_transport.store.appends import MAX_APPENDS, MessageAppend, joined
from selfhost_transport.store.entries import Appended, MessageOperation, Ref
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.message import Message


async def opened(sessions: SessionStore, data: str | bytes = "a") -> Ref:
    return Ref((await sessions.publish("room", [Message(name="n", data=data)])).position)


def appends(*texts: str) -> list[MessageAppend]:
    return [MessageAppend(text, publish_id=f"id-{text}") for text in texts]


async def test_several_appends_are_one_entry_with_a_version_each(sessions: SessionStore) -> None:
    ref = await opened(sessions)
    versions = await sessions.append_all(
        "room",
        ref,
        [
            MessageAppend("b", extras={"k": 1}),
            MessageAppend("c", operation=MessageOperation(client_id="c")),
            MessageAppend("d"),
        ],
    )
    assert [version.index for version in versions] == [0, 1, 2]
    assert len({version.position for version in versions}) == 1
    (entry,) = await sessions.read_after("room", ref.position)
    assert isinstance(entry, Appended)
    assert (entry.data, entry.extras, entry.operation) == ("bcd", {"k": 1}, MessageOperation(index=2))
    message = await sessions.history.message("room", ref)
    epoch = (await sessions.open("room")).epoch
    assert message.data == "abcd"
    assert message.version is not None
    assert (
        message.version.serial
        == versions[-1].serial(epoch)
        == entry.operation.version(entry.position, epoch).serial
    )


async def test_appends_that_were_written_are_left_out_of_a_repeat(sessions: SessionStore) -> None:
    ref = await opened(sessions)
    first = await sessions.append_all("room", ref, appends("b"))
    second = await sessions.append_all("room", ref, appends("c", "d"))
    again = await sessions.append_all("room", ref, appends("b", "c", "d", "e"))
    assert again[:3] == [*first, *second]
    assert again[3].position > second[0].position
    assert (await sessions.history.message("room", ref)).data == "abcde"


async def test_appends_that_cannot_be_written_are_all_refused(sessions: SessionStore) -> None:
    ref = await opened(sessions, b"bytes")
    with pytest.raises(BadRequest):
        await sessions.append_all("room", ref, appends("b", "c"))
    assert await sessions.read_after("room", ref.position) == []
    # None of their ids counts as used.
    await sessions.append_all("room", ref, [MessageAppend(b"!", publish_id="id-b")])
    assert (await sessions.history.message("room", ref)).data == b"bytes!"


def test_appends_of_different_kinds_do_not_join() -> None:
    assert MessageAppend("a").joins(MessageAppend("b")) and MessageAppend(None).joins(MessageAppend(None))
    assert not MessageAppend("a").joins(MessageAppend(b"b"))
    assert not MessageAppend("a").joins(MessageAppend(None))
    assert not MessageAppend(b"a", "cipher").joins(MessageAppend(b"b"))
    with pytest.raises(InvalidArgument):
        joined([MessageAppend("a"), MessageAppend(b"b")])
    with pytest.raises(InvalidArgument):
        joined([MessageAppend("a")] * (MAX_APPENDS + 1))
    assert joined([MessageAppend(b"a", "cipher"), MessageAppend(b"b", "cipher")]) == MessageAppend(
        b"ab", "cipher", operation=MessageOperation(index=1)
    )
