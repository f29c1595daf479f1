"""Appends that reach Redis in one call: each is written, refused or recognised for itself, as if it came alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from textwrap import indent
from typing import Any

import pytest

from selfhost_transport.errors import StoreFull, StoreUnsuitable
from selfhost_transport.redis_io import combined_calls
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store import scripts
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_operations import OpenText
from selfhost_transport.store.turn_store import GAP, LOST, CancelFilter, Lease, Scope, TurnStore
from selfhost_transport.wire.serial import Position
from tests.processes import wait_until
from tests.store.turns import CANCEL, SESSION, log, names, open_text, started

REPEATED = b"repeated"
TEXTS = 6


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as one:
        yield one


@dataclass
class Room:
    """A session with open texts of turns of their own."""

    turns: TurnStore
    sessions: SessionStore
    leases: list[Lease] = field(default_factory=list)
    texts: list[OpenText] = field(default_factory=list)

    async def open(self, count: int = TEXTS) -> None:
        for number in range(count):
            lease = await started(self.turns, f"t{number}")
            self.leases.append(lease)
            self.texts.append(await open_text(self.turns, lease))

    def append(self, number: int, chunk: str, offset: int | None = None) -> asyncio.Future[Any]:
        text = self.texts[number]
        if offset is not None:
            text.offset = offset
        return self.turns.append(self.leases[number], text, chunk)

    async def text(self, number: int) -> object:
        return (await self.sessions.history.message(SESSION, self.texts[number].ref)).data

    async def appended(self) -> list[str]:
        return [name for name in names(await log(self.sessions)) if name.startswith("+")]


async def room(connection: RedisConnection, prefix: str, count: int = TEXTS) -> Room:
    keys = Keyspace(prefix)
    made = Room(TurnStore(connection, keys), SessionStore(connection, keys))
    await made.open(count)
    return made


@pytest.fixture
async def connection(server: EmbeddedRedis) -> AsyncIterator[RedisConnection]:
    one = RedisConnection(server.url)
    one.keep_loaded(scripts.everything())
    yield one
    await one.command("FLUSHDB")
    await one.close()


async def evaluations(connection: RedisConnection) -> int:
    text: bytes = await connection.command("INFO", "commandstats")
    line = next(line for line in text.splitlines() if line.startswith(b"cmdstat_evalsha:"))
    return int(line.partition(b"calls=")[2].partition(b",")[0])


async def test_each_is_refused_and_written_for_itself(connection: RedisConnection) -> None:
    """One of each outcome in one call: also of an error within the script, P2, P6 and P7."""
    here = await room(connection, "each")
    await asyncio.gather(*(here.append(number, "a") for number in range(TEXTS)))
    await here.turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t1"), CANCEL)
    base = here.turns.keys.base_of(SESSION)
    await connection.command("DEL", f"{base}x:{here.texts[2].ref}:{SESSION}")
    await connection.command("RPUSH", f"{base}x:{here.texts[2].ref}:{SESSION}", "of another type")
    before = await evaluations(connection)
    replies = await asyncio.gather(
        here.append(0, "b"),
        here.append(1, "b"),
        here.append(2, "b"),
        here.append(3, "a", 0),
        here.append(4, "c", 9),
        here.append(5, "b"),
        here.append(0, "c"),
        return_exceptions=True,
    )
    assert await evaluations(connection) - before == 1
    assert isinstance(replies[2], StoreUnsuitable) and "WRONGTYPE" in str(replies[2])
    assert (replies[1], replies[3], replies[4]) == (LOST, REPEATED, GAP)
    for written in (replies[0], replies[5], replies[6]):
        assert isinstance(written, bytes) and written[0:1].isdigit()
    assert [await here.text(number) for number in (0, 1, 3, 4, 5)] == ["abc", "a", "a", "a", "ab"]
    assert (await here.appended())[-3:] == ["+b", "+b", "+c"]


@pytest.mark.parametrize("seed", range(4))
async def test_the_outcome_is_that_of_appends_one_by_one(
    connection: RedisConnection, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same random appends, with repeats, holes and a cancelled turn, once in one call and once alone."""
    chance = random.Random(seed)
    steps = [
        (
            chance.randrange(TEXTS),
            chance.choice(["x", "yz", "ä🙂", ""]),
            chance.choice([None] * 8 + [0, 3, 50]),
        )
        for _ in range(120)
    ]
    outcomes = []
    for prefix, most in ((f"many{seed}", combined_calls.MOST), (f"one{seed}", 1)):
        monkeypatch.setattr(combined_calls, "MOST", most)
        here = await room(connection, prefix)
        await here.turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t1"), CANCEL)
        before, replies = await evaluations(connection), list[bytes]()
        for at in range(0, len(steps), 30):
            replies += await asyncio.gather(*(here.append(*step) for step in steps[at : at + 30]))
        assert await evaluations(connection) - before == (4 if most > 1 else len(steps))
        shown = [reply if reply in (LOST, GAP, REPEATED) else b"written" for reply in replies]
        texts = [await here.text(number) for number in range(TEXTS)]
        outcomes.append((shown, texts, await here.appended()))
    assert outcomes[0] == outcomes[1]
    assert {LOST, GAP, REPEATED, b"written"} == set(outcomes[0][0])


async def test_each_is_announced_with_the_one_before_it(
    server: EmbeddedRedis, connection: RedisConnection
) -> None:
    """Also within a call (P1, P7)."""
    here, heard = await room(connection, "chain"), list[bytes]()
    subscriber = Subscriber(server.url)
    await subscriber.subscribe(here.turns.keys.channel(SESSION), heard.append)
    head = f"{here.turns.keys.base_of(SESSION)}p:{SESSION}"
    last: bytes = await connection.command("GET", head)
    positions: list[bytes] = await asyncio.gather(*(here.append(at % TEXTS, "n") for at in range(24)))
    assert await connection.command("GET", head) == positions[-1]
    await wait_until(lambda: len(heard) == 24)
    assert [tuple(one.split(b" ")[:2]) for one in heard] == list(
        zip(positions, [last, *positions[:-1]], strict=True)
    )
    entries = await log(here.sessions)
    assert [entry.position for entry in entries[-24:]] == [
        Position.parse_id(one.decode()) for one in positions
    ]
    await subscriber.close()


async def test_a_full_redis_refuses_each_and_writes_all_in_order_once_there_is_room(
    server: EmbeddedRedis, connection: RedisConnection
) -> None:
    here = await room(connection, "room")
    await asyncio.gather(*(here.append(number, "0") for number in range(TEXTS)))
    before = await here.appended()
    await connection.command("CONFIG", "SET", "maxmemory", 1)
    try:
        refused = await asyncio.gather(
            *(here.append(number, "x") for number in range(TEXTS)), return_exceptions=True
        )
        assert {type(error) for error in refused} == {StoreFull}
        assert await here.appended() == before
        held: list[asyncio.Future[Any]] = []
        for text in here.texts:
            text.offset = 1
        for step in range(1, 4):
            for lease, text in zip(here.leases, here.texts, strict=True):
                held.append(here.turns.append(lease, text, str(step), retry_s=20))
            await asyncio.sleep(0)
        await connection.command("PING")
        assert not any(reply.done() for reply in held)
    finally:
        await connection.command("CONFIG", "SET", "maxmemory", 0)
    for reply in await asyncio.gather(*held):
        assert reply not in (LOST, GAP)
    assert [await here.text(number) for number in range(TEXTS)] == ["0123"] * TEXTS


async def test_a_long_text_among_many_is_written_like_the_others(connection: RedisConnection) -> None:
    here = await room(connection, "long")
    long = "long " * 40_000
    await asyncio.gather(*(here.append(number, long if number == 2 else "short") for number in range(TEXTS)))
    assert [await here.text(number) for number in range(TEXTS)] == ["short", "short", long, *["short"] * 3]


def test_only_appends_of_open_texts_are_made_together() -> None:
    """The script is append.lua itself, with its names taken from each call's own values."""
    whole, alone = scripts.several("append"), scripts.load("append")
    body = alone.source.partition("if redis.call('GET', fence)")[2]
    assert indent(body.strip(), "  ").strip() in whole.source
    assert whole.digest in {script.digest for script in scripts.everything()}
