"""Turns that an exporter gave up: kept, listed, delivered again, on a real Redis."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import NotFound
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.ended_turns import Ended, EndedTurns
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.turn_store import TurnStore
from tests.store.turns import SESSION, finish, started

LEASE_MS = 60_000


@pytest.fixture
async def queue(connection: RedisConnection, keys: Keyspace) -> EndedTurns:
    made = EndedTurns(connection, keys, "db")
    await made.open(limit=2)
    return made


async def taken(queue: EndedTurns, keys: Keyspace) -> Ended | None:
    found = await queue.take(bucket_of(SESSION, keys.buckets), LEASE_MS)
    assert found is None or isinstance(found, Ended)
    return found


async def given_up(turns: TurnStore, queue: EndedTurns, keys: Keyspace, turn: str = "t1") -> Ended:
    await finish(turns, await started(turns, turn))
    ended = await taken(queue, keys)
    assert ended is not None
    await queue.bury(ended, "the database refused it")
    return ended


async def test_what_was_given_up_is_kept_with_its_reason_and_holds_up_nothing(
    turns: TurnStore, queue: EndedTurns, keys: Keyspace, connection: RedisConnection
) -> None:
    first = await given_up(turns, queue, keys, "t1")
    await finish(turns, await started(turns, "t2"))
    second = await taken(queue, keys)
    assert second is not None and second.turn_id == "t2"
    await queue.done(second)
    (letter,) = await queue.buried()
    assert letter.reason == "the database refused it"
    assert (letter.ended.turn_id, letter.ended.status, letter.ended.last) == ("t1", first.status, first.last)
    assert letter.ended.event_id == first.event_id
    key = f"{keys.base_of(SESSION)}undelivered:db"
    assert 29 * 86_400_000 < await connection.command("PTTL", key) <= 30 * 86_400_000


async def test_it_is_delivered_again_under_the_id_of_its_first_delivery(
    turns: TurnStore, queue: EndedTurns, keys: Keyspace
) -> None:
    first = await given_up(turns, queue, keys)
    (letter,) = await queue.buried()
    await queue.requeue(letter.letter_id)
    assert await queue.buried() == []
    again = await taken(queue, keys)
    assert again is not None
    assert (again.turn_id, again.event_id, again.last) == ("t1", first.event_id, first.last)
    assert again.item_id != first.item_id and again.delivery == 1
    with pytest.raises(NotFound, match="given up nothing"):
        await queue.requeue(letter.letter_id)


@pytest.mark.parametrize("letter_id", ["", "0", "0/x", "x/1-1", "99/1-1", "0/1-1"])
async def test_an_id_of_nothing_is_refused(queue: EndedTurns, letter_id: str) -> None:
    with pytest.raises(NotFound, match="given up nothing"):
        await queue.requeue(letter_id)


async def test_an_exporter_that_was_ended_takes_nothing_back(
    turns: TurnStore, queue: EndedTurns, keys: Keyspace
) -> None:
    await given_up(turns, queue, keys)
    (letter,) = await queue.buried()
    assert await queue.forget()
    with pytest.raises(NotFound):
        await queue.requeue(letter.letter_id)
    assert not await queue.forget()


async def test_turns_beyond_the_limit_are_counted(
    turns: TurnStore, queue: EndedTurns, keys: Keyspace
) -> None:
    for number in range(5):
        await finish(turns, await started(turns, f"t{number}"))
    assert (await queue.waiting(), await queue.dropped()) == (2, 3)
    kept = await taken(queue, keys)
    assert kept is not None and kept.turn_id == "t3"


async def test_a_process_renews_what_it_has_and_learns_that_it_was_taken(
    turns: TurnStore, queue: EndedTurns, keys: Keyspace, connection: RedisConnection
) -> None:
    await finish(turns, await started(turns))
    found = await queue.take(bucket_of(SESSION, keys.buckets), 1)
    assert isinstance(found, Ended)
    assert await queue.renew(found)
    other = EndedTurns(connection, keys, "db")
    taken_over = None
    while not isinstance(taken_over, Ended):
        taken_over = await other.take(bucket_of(SESSION, keys.buckets), 1)
    assert (taken_over.turn_id, taken_over.delivery) == ("t1", 2)
    assert not await queue.renew(found)
