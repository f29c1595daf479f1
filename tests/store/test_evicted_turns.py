"""Redis with an eviction policy may take the hash of one turn alone: the turn still gets its terminal (P3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from selfhost_transport.errors import Busy, NotFound
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import Created
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_inputs import TurnInputs
from selfhost_transport.store.turn_operations import CreateMessage
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_store import CancelFilter, Policy, Scope, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.headers import read_headers
from selfhost_transport.wire.message import Message
from tests.store.continuations import continuation
from tests.store.turns import CANCEL, SESSION, finish, log, request, started, take


class Evicted:
    """A turn of which Redis has evicted all that is its own."""

    def __init__(
        self, connection: RedisConnection, keys: Keyspace, turns: TurnStore, sessions: SessionStore
    ) -> None:
        self.turns = turns
        self.pauses, self.inputs = TurnPauses(connection, keys), TurnInputs(connection, keys)
        self._connection, self._keys, self._sessions = connection, keys, sessions

    async def evict(self, turn: str = "t1") -> None:
        names = [self._keys.of_item(family, turn, SESSION) for family in ("t", "f")]
        await self._connection.command("DEL", *names)

    async def expire_lease(self) -> None:
        name = f"{self._keys.base_of(SESSION)}leases"
        [pair] = await self._connection.command("ZRANGE", name, 0, -1)
        await self._connection.command("ZADD", name, 0, pair)

    async def reap(self) -> tuple[str, str, str] | None:
        return await self.turns.reap(bucket_of(SESSION, self._keys.buckets))

    async def reasons(self, turn: str = "t1") -> list[tuple[str | None, str | None]]:
        """Of each terminal of the turn: how it ended, and whose it was."""
        messages = [
            message
            for entry in await log(self._sessions)
            if isinstance(entry, Created)
            for message in entry.messages
        ]
        found = [read_headers(message) for message in messages if message.name == h.AI_RUN_END]
        return [
            (headers.get(h.RUN_REASON), headers.get(h.RUN_CLIENT_ID))
            for headers in found
            if headers is not None and headers.run_id == turn
        ]

    async def open_turns(self) -> set[str]:
        base = self._keys.base_of(SESSION)
        return {turn.decode() for turn in await self._connection.command("HKEYS", f"{base}a:{SESSION}")}


@pytest.fixture
def evicted(connection: RedisConnection, keys: Keyspace, turns: TurnStore, sessions: SessionStore) -> Evicted:
    return Evicted(connection, keys, turns, sessions)


async def running(evicted: Evicted) -> None:
    await started(evicted.turns)
    await evicted.evict()
    await evicted.expire_lease()


async def waiting_for_a_worker(evicted: Evicted) -> None:
    await evicted.turns.submit(request("t1"))
    await evicted.evict()
    assert await take(evicted.turns) is None


async def waiting_for_people(evicted: Evicted) -> None:
    lease = await started(evicted.turns)
    await evicted.pauses.suspend(lease, ["call"], [CreateMessage(Message(name="suspend"))])
    await evicted.evict()
    with pytest.raises(NotFound):
        await evicted.inputs.answer(SESSION, "t1", [Message(name="answer")], "call", continuation())


async def waiting_for_another_turn(evicted: Evicted) -> None:
    lease = await started(evicted.turns, "t0")
    for turn in ("t1", "t2"):
        await evicted.turns.submit(request(turn, policy=Policy.QUEUE))
    await evicted.evict()
    await finish(evicted.turns, lease)


@pytest.mark.parametrize(
    "lost", [running, waiting_for_a_worker, waiting_for_people, waiting_for_another_turn]
)
async def test_p3_it_ends_as_failed(evicted: Evicted, lost: Callable[[Evicted], Awaitable[None]]) -> None:
    await lost(evicted)
    assert await evicted.reap() == ("t1", SESSION, "failed")
    assert await evicted.reasons() == [("error", "alice")]
    assert await evicted.reap() is None
    # What waited behind it runs.
    if (behind := await take(evicted.turns)) is not None:
        await finish(evicted.turns, behind)
    assert await evicted.open_turns() == set()


async def test_a_suspended_one_counts_no_longer(evicted: Evicted) -> None:
    """A session that takes one turn at a time takes the next, and then no other."""
    await waiting_for_people(evicted)
    assert await evicted.reap() == ("t1", SESSION, "failed")
    await evicted.turns.submit(request("t2", policy=Policy.REJECT))
    with pytest.raises(Busy):
        await evicted.turns.submit(request("t3", policy=Policy.REJECT))


@pytest.mark.parametrize("scope", [CancelFilter(Scope.TURN, "t1"), CancelFilter(Scope.OWNER, "alice")])
async def test_p2_it_can_be_cancelled(evicted: Evicted, scope: CancelFilter) -> None:
    await running(evicted)
    cancelled = await evicted.turns.cancels.cancel(SESSION, scope, CANCEL)
    assert cancelled.matched == ("t1",)
    assert await evicted.reasons() == [("cancelled", "alice")]
    assert await evicted.open_turns() == set()
