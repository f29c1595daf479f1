"""`dead list`, `dead requeue`, and `cancel --all --prefix` (DUR-11, CAN-24)."""

from __future__ import annotations

import json
import logging

import pytest

from selfhost_transport.errors import InvalidArgument, NotFound
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.keys import bucket_of
from selfhost_transport.store.turn_store import TurnRecord
from selfhost_transport.turns import headers as h
from tests.commands.conftest import Call, InRoom
from tests.worker.session import Room, header


async def lose(room: Room) -> str:
    """A turn whose only attempt was lost with its worker."""
    turn = await room.send("poison", client_id="alice", max_attempts=1)
    bucket = bucket_of(room.name, room.turns.keys.buckets)
    assert await room.turns.take(bucket, "assistant", "worker-7", 60_000) is not None
    leases = f"{room.turns.keys.base(bucket)}leases"
    await room.turns.redis.command("ZADD", leases, 1, f"{turn} {room.name}")
    assert await room.turns.reap(bucket) == (turn, room.name, "failed")
    return turn


def test_dead_letters_are_listed_and_sent_again(call: Call, in_room: InRoom) -> None:
    assert "no dead letters" in call("dead", "list").output
    turn = in_room(lose)
    (letter,) = json.loads(call("dead", "list", "--json").output)
    assert (letter["turn_id"], letter["session"], letter["worker"], letter["attempts"]) == (
        turn, "room", "worker-7", 1,
    )  # fmt: skip
    assert letter["letter_id"] in call("dead", "list").output
    again = call("dead", "requeue", letter["letter_id"])
    assert again.exit_code == 0, again.output
    following = again.output.split()[1]

    async def look(room: Room) -> tuple[TurnRecord, TurnRecord]:
        return await room.record(turn), await room.record(following)

    lost, new = in_room(look)
    assert (lost.status, new.status, new.owner, new.agent) == ("failed", "pending", "alice", "assistant")

    async def sent(room: Room) -> list[tuple[str | None, object]]:
        inputs = [m for m in await room.history() if m.name == h.AI_INPUT]
        assert header(inputs[1], h.FORK_OF) == header(inputs[0], h.CODEC_MESSAGE_ID)
        return [(m.client_id, m.data) for m in inputs]

    assert in_room(sent) == [("alice", "poison")] * 2
    assert json.loads(call("dead", "list", "--json").output) == []
    assert isinstance(call("dead", "requeue", letter["letter_id"]).exception, NotFound)
    assert isinstance(call("dead", "requeue", "nonsense").exception, NotFound)


def test_can_24_the_emergency_stop_across_sessions(
    call: Call, in_room: InRoom, caplog: pytest.LogCaptureFixture
) -> None:
    async def many(room: Room) -> list[str]:
        turns: list[str] = []
        redis: RedisConnection = room.turns.redis
        for name in ("tenant-a:1", "tenant-a:2", "tenant-a:*", "tenant-b:1"):
            other = Room(redis, room.turns.keys, name)
            turns += [await other.send("hello") for _ in range(2)]
        return turns

    turns = in_room(many)
    with caplog.at_level(logging.WARNING, logger="selfhost_transport.audit"):
        reported = json.loads(
            call("cancel", "--all", "--prefix", "tenant-a:", "--by", "carol", "--json").output
        )
    assert (reported["turns"], set(reported["sessions"])) == (6, {"tenant-a:1", "tenant-a:2", "tenant-a:*"})
    assert {turn for ended in reported["sessions"].values() for turn in ended} == set(turns[:6])
    assert "cancel.all by=carol prefix=tenant-a: sessions=3 turns=6" in caplog.text
    assert caplog.text.count("turn.cancelled") == 6
    assert "0 turn(s) in 0" in call("cancel", "--all", "--prefix", "tenant-a:*x").output
    assert "2 turn(s) in 1" in call("cancel", "--all", "--prefix", "tenant-b").output


def test_what_a_cancel_across_sessions_needs(call: Call) -> None:
    for arguments in (["--all"], ["--prefix", "x"], ["room", "--all", "--prefix", "x"], []):
        assert isinstance(call("cancel", *arguments).exception, InvalidArgument), arguments
