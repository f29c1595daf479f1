"""Appends that are written as one: their versions, and repeats (protocol section 7.6, P5)."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import BadRequest, InvalidArgument
from selfhost_transport.store.entries import Appended, Operation, Ref
from selfhost_transport.store.pieces import MAX_PIECES, Piece, joined
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.message import Message


async def opened(sessions: SessionStore, data: str | bytes = "a") -> Ref:
    return Ref((await sessions.publish("room", [Message(name="n", data=data)])).position)


def pieces(*texts: str) -> list[Piece]:
    return [Piece(text, publish_id=f"id-{text}") for text in texts]


async def test_several_appends_are_one_entry_with_a_version_each(sessions: SessionStore) -> None:
    ref = await opened(sessions)
    versions = await sessions.append_pieces(
        "room",
        ref,
        [Piece("b", extras={"k": 1}), Piece("c", operation=Operation(client_id="c")), Piece("d")],
    )
    assert [version.index for version in versions] == [0, 1, 2]
    assert len({version.position for version in versions}) == 1
    (entry,) = await sessions.read_after("room", ref.position)
    assert isinstance(entry, Appended)
    assert (entry.data, entry.extras, entry.operation) == ("bcd", {"k": 1}, Operation(index=2))
    message = await sessions.history.message("room", ref)
    series = (await sessions.open("room")).series
    assert message.data == "abcd"
    assert message.version is not None
    assert (
        message.version.serial
        == versions[-1].serial(series)
        == entry.operation.version(entry.position, series).serial
    )


async def test_pieces_that_were_written_are_left_out_of_a_repeat(sessions: SessionStore) -> None:
    ref = await opened(sessions)
    first = await sessions.append_pieces("room", ref, pieces("b"))
    second = await sessions.append_pieces("room", ref, pieces("c", "d"))
    again = await sessions.append_pieces("room", ref, pieces("b", "c", "d", "e"))
    assert again[:3] == [*first, *second]
    assert again[3].position > second[0].position
    assert (await sessions.history.message("room", ref)).data == "abcde"


async def test_pieces_that_cannot_be_written_are_all_refused(sessions: SessionStore) -> None:
    ref = await opened(sessions, b"bytes")
    with pytest.raises(BadRequest):
        await sessions.append_pieces("room", ref, pieces("b", "c"))
    assert await sessions.read_after("room", ref.position) == []
    # None of their ids counts as used.
    await sessions.append_pieces("room", ref, [Piece(b"!", publish_id="id-b")])
    assert (await sessions.history.message("room", ref)).data == b"bytes!"


def test_pieces_of_different_kinds_do_not_join() -> None:
    assert Piece("a").joins(Piece("b")) and Piece(None).joins(Piece(None))
    assert not Piece("a").joins(Piece(b"b"))
    assert not Piece("a").joins(Piece(None))
    assert not Piece(b"a", "cipher").joins(Piece(b"b"))
    with pytest.raises(InvalidArgument):
        joined([Piece("a"), Piece(b"b")])
    with pytest.raises(InvalidArgument):
        joined([Piece("a")] * (MAX_PIECES + 1))
    assert joined([Piece(b"a", "cipher"), Piece(b"b", "cipher")]) == Piece(
        b"ab", "cipher", operation=Operation(index=1)
    )
