"""Sessions with very many open turns: no script keeps Redis for long, and a cancel holds for all of them (P2, P3, P9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from selfhost_transport.errors import Busy, LeaseLost, TurnEnded
from selfhost_transport.store.ended_turns import EndedTurns
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import bucket_of
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_cancels import TurnCancels
from selfhost_transport.store.turn_inputs import TurnInputs
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_store import CancelFilter, Policy, Scope, TurnStore
from selfhost_transport.wire.message import Message
from tests.store.slow_scripts import TRIES, slow_scripts
from tests.store.turns import CANCEL, SESSION, request, started, take

ALL = CancelFilter(Scope.ALL)


@pytest.fixture
def many(turns: TurnStore) -> TurnStore:
    """Without a limit: what is refused at a limit is tested elsewhere."""
    return TurnStore(turns.redis, turns.keys, StoreOptions(max_open_turns=0, max_waiting=0))


async def opened(store: TurnStore, count: int, prefix: str = "t", **changes: str) -> None:
    for first in range(0, count, 200):
        numbers = range(first, min(first + 200, count))
        await asyncio.gather(*(store.submit(request(f"{prefix}{number}", **changes)) for number in numbers))


@pytest.fixture
async def exporter(turns: TurnStore) -> AsyncIterator[EndedTurns]:
    """Someone who wants to learn of each turn that ends."""
    ended = EndedTurns(turns.redis, turns.keys, "archive")
    await ended.open(100_000)
    yield ended


@pytest.mark.usefixtures("exporter")
async def test_cancelling_a_thousand_turns_keeps_redis_no_longer_than_ten_milliseconds(
    many: TurnStore,
) -> None:
    slow: list[int] = []
    for attempt in range(TRIES):
        await opened(many, 1000, f"try{attempt}-")

        async def cancel() -> None:
            cancelled = await many.cancels.cancel(SESSION, ALL, CANCEL)
            assert len(cancelled.matched) == len(set(cancelled.matched)) == 1000

        slow = await slow_scripts(many.redis, cancel)
        assert await many.active(SESSION) == []
        if not slow:
            break
    assert not slow


async def test_eight_thousand_open_turns_are_named_interrupted_and_cancelled(many: TurnStore) -> None:
    """More than a script can unpack."""
    await opened(many, 8200)
    with pytest.raises(Busy) as busy:
        await many.submit(request("rejected", policy=Policy.REJECT))
    detail = busy.value.info.detail or {}
    assert (len(detail["turns"]), detail["open"]) == (100, 8200)
    accepted = await many.submit(request("interrupting", policy=Policy.INTERRUPT))
    assert len(set(accepted.interrupted)) == 8200
    assert [record.turn_id for record in await many.active(SESSION)] == ["interrupting"]


async def test_interrupting_a_thousand_turns_keeps_redis_no_longer_than_ten_milliseconds(
    many: TurnStore,
) -> None:
    slow: list[int] = []
    for attempt in range(TRIES):
        await opened(many, 1000, f"try{attempt}-")

        async def interrupt(attempt: int = attempt) -> None:
            accepted = await many.submit(request(f"new{attempt}", policy=Policy.INTERRUPT))
            assert len(set(accepted.interrupted)) == 1000 + (attempt > 0)

        slow = await slow_scripts(many.redis, interrupt)
        assert [record.turn_id for record in await many.active(SESSION)] == [f"new{attempt}"]
        if not slow:
            break
    assert not slow


async def test_a_repeated_interrupt_finishes_what_a_dead_gateway_began(
    many: TurnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(many, 200)

    async def nothing(*_: object) -> list[bytes]:
        return []

    with monkeypatch.context() as patch:
        patch.setattr(TurnCancels, "close_marked", nothing)
        patch.setattr(TurnCancels, "interrupt_rest", nothing)
        await many.submit(request("new", policy=Policy.INTERRUPT))
    await many.submit(request("later"))
    assert len(await many.active(SESSION)) > 100
    assert (await many.submit(request("new", policy=Policy.INTERRUPT))).repeated
    assert {record.turn_id for record in await many.active(SESSION)} == {"new", "later"}


async def test_only_those_that_match_are_cancelled_in_every_slice(many: TurnStore) -> None:
    for number in range(900):
        await many.submit(request(f"t{number}", owner="alice" if number % 3 else "bob"))
    cancelled = await many.cancels.cancel(SESSION, CancelFilter(Scope.OWNER, "bob"), CANCEL)
    assert len(cancelled.matched) == 300
    left = await many.active(SESSION)
    assert len(left) == 600
    assert {record.owner for record in left} == {"alice"}
    head = await many.redis.command("GET", f"{many.keys.base_of(SESSION)}p:{SESSION}")
    # One entry of the cancel, whatever the number of slices; the acknowledged position is after the last mark.
    assert cancelled.position < cancelled.sealed
    assert cancelled.sealed.stream_id.encode() <= head


async def test_a_turn_that_is_sent_while_a_cancel_is_at_work_is_not_meant(
    many: TurnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(many, 900)
    original, sent = SessionScripts.run, 0

    async def and_send(self: SessionScripts, *what: Any, **named: Any) -> object:
        nonlocal sent
        reply = await original(self, *what, **named)
        if what[0] == "cancel":
            sent += 1
            await many.submit(request(f"new{sent}"))
        return reply

    monkeypatch.setattr(SessionScripts, "run", and_send)
    cancelled = await many.cancels.cancel(SESSION, ALL, CANCEL)
    assert len(cancelled.matched) == 900
    assert sent > 1
    assert {record.turn_id for record in await many.active(SESSION)} == {f"new{n + 1}" for n in range(sent)}


async def marked_only(store: TurnStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancel everything, and die before what was marked is closed."""

    async def nothing(self: TurnCancels, session: str, turns: object) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(TurnCancels, "close_marked", nothing)
        await store.cancels.cancel(SESSION, ALL, CANCEL)


async def test_a_marked_turn_is_over_before_it_is_closed(
    many: TurnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(many, 40, "before")
    while await take(many) is not None:
        pass
    lease = await started(many, "running")
    await opened(many, 3, "pending")
    await many.submit(request("queued", policy=Policy.QUEUE))
    await marked_only(many, monkeypatch)
    left = await many.active(SESSION)
    assert len(left) > 20
    assert {record.status for record in left} == {"cancelling"}
    # Nothing is written for it, sent into it, taken, or started in its place.
    with pytest.raises(LeaseLost):
        await many.end(lease, "complete", [])
    with pytest.raises(TurnEnded):
        await TurnInputs(many.redis, many.keys).steer(SESSION, "running", [Message(name="more")])
    assert await take(many) is None
    assert await many.renew(bucket_of(SESSION, many.keys.buckets), [lease], 1000) == ["running"]
    # Again: it ends what is left.
    again = await many.cancels.cancel(SESSION, ALL, CANCEL)
    assert set(again.matched) == {record.turn_id for record in left}
    assert await many.active(SESSION) == []


async def test_what_a_dead_gateway_has_marked_a_worker_closes(
    many: TurnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(many, 30)
    await marked_only(many, monkeypatch)
    left = {record.turn_id for record in await many.active(SESSION)}
    assert len(left) == 22
    base, bucket = many.keys.base_of(SESSION), bucket_of(SESSION, many.keys.buckets)
    for member in await many.redis.command("ZRANGE", f"{base}deadlines", 0, -1):
        await many.redis.command("ZADD", f"{base}deadlines", 1, member)
    pauses = TurnPauses(many.redis, many.keys)
    ended = {due[0] async for due in _expired(pauses, bucket)}
    assert ended == left
    assert await many.active(SESSION) == []
    page = await SessionStore(many.redis, many.keys).history.page(SESSION, Query(limit=1000))
    assert sum(message.name == "run-cancelled" for message in page.messages) == 30


async def _expired(pauses: TurnPauses, bucket: int) -> AsyncIterator[tuple[str, str, str]]:
    while (due := await pauses.expire(bucket)) is not None:
        yield due


async def test_a_cancelled_turn_that_waited_for_a_worker_does_not_count_as_waiting(many: TurnStore) -> None:
    await opened(many, 40)
    await many.cancels.cancel(SESSION, ALL, CANCEL)
    base = many.keys.base_of(SESSION)
    assert await many.redis.command("XLEN", f"{base}q:a") == 0


async def test_turns_from_before_the_index_are_found(many: TurnStore) -> None:
    await opened(many, 20)
    await many.redis.command("DEL", f"{many.keys.base_of(SESSION)}open:{SESSION}")
    assert len((await many.cancels.cancel(SESSION, ALL, CANCEL)).matched) == 20
