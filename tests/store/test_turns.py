"""The life of a turn on a real Redis: accepted, taken, written, cancelled, ended, taken over."""

from __future__ import annotations

import asyncio
import time

import pytest

from selfhost_transport.errors import Busy, Conflict, LeaseLost, RateLimited
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.dead_letters import DeadLetters
from selfhost_transport.store.entries import (
    Appended,
    Created,
    MessageOperation,
    Ref,
    pack_append_body,
    unpack_entry,
)
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_operations import CloseMessage, CreateMessage, OpenText, packed_operations
from selfhost_transport.store.turn_store import (
    CancelFilter,
    Policy,
    Scope,
    TurnStore,
)
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position
from tests.store.turns import (
    CANCEL,
    LEASE_MS,
    SESSION,
    chunk,
    extras,
    finish,
    log,
    names,
    open_text,
    request,
    started,
    take,
)


async def test_a_turn_from_send_to_end(turns: TurnStore, sessions: SessionStore) -> None:
    lease = await started(turns)
    assert (lease.fence, lease.attempt, lease.context) == (1, 1, b"ctx")
    text = await open_text(turns, lease)
    for data in ("Hé", "llo", "x" * 40, "y" * 300):
        await chunk(turns, lease, text, data)
    await turns.write(lease, 2, [CloseMessage(text.ref, extras(status="complete"))])
    await finish(turns, lease)
    assert names(await log(sessions)) == [
        "input", "run-start", "step-start", "text", "+Hé", "+llo", "+" + "x" * 40, "+" + "y" * 300, "+ complete", "run-end",
    ]  # fmt: skip
    message = await sessions.history.message(SESSION, text.ref)
    assert message.data == "Héllo" + "x" * 40 + "y" * 300
    assert message.extras == extras(status="complete")
    record = await turns.record(SESSION, "t1")
    assert record is not None and record.status == "completed"
    assert await turns.active(SESSION) == []
    assert await take(turns) is None


async def test_a_lease_brings_the_send_as_it_stands(turns: TurnStore, sessions: SessionStore) -> None:
    await turns.submit(request("t1"))
    changed = await turns.submit(request("t2"))
    await sessions.replace(
        SESSION,
        Ref(changed.position),
        MessageAction.UPDATE,
        Message(data="edited"),
        MessageOperation("alice"),
    )
    first, second = await take(turns), await take(turns)
    assert first is not None and second is not None
    sent = unpack_entry(first.input_position, first.send)
    assert isinstance(sent, Created) and sent.messages[0].data == "t1" and first.more
    # Its newest state is in the history only; and nothing is left behind it.
    assert second.send == b"" and not second.more


async def test_a_text_is_opened_with_its_first_chunk(turns: TurnStore, sessions: SessionStore) -> None:
    lease = await started(turns)
    opened = CreateMessage(Message(name="text", data=""), extras(status="cancelled"), "first ")
    (position,) = await turns.write(lease, 1, [opened])
    text = OpenText(Ref(position), len("first "))
    await chunk(turns, lease, text, "second")
    assert (await sessions.history.message(SESSION, text.ref)).data == "first second"
    await turns.end(lease, "completed", [CloseMessage(text.ref, extras(status="complete"), " last")])
    chunks = [entry for entry in await log(sessions) if isinstance(entry, Appended)]
    assert [entry.data for entry in chunks] == ["first ", "second", " last"]
    assert (await sessions.history.message(SESSION, text.ref)).data == "first second last"


@pytest.mark.parametrize("length", [0, 31, 32, 255, 256, 65_535, 65_536])
def test_a_last_chunk_is_packed_like_any_append(length: int) -> None:
    close = CloseMessage(Ref(Position(1, 0)), extras(status="complete"), "x" * length)
    assert packed_operations([close])[2] == pack_append_body(close.data, close.extras)


async def test_p2_nothing_of_a_turn_follows_its_cancel(turns: TurnStore, sessions: SessionStore) -> None:
    lease = await started(turns)
    text = await open_text(turns, lease)
    await chunk(turns, lease, text, "before")
    late = turns.append(lease, text, "racing")
    cancelled = await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t1"), CANCEL)
    assert cancelled.matched == ("t1",)
    assert await late != b"lost"  # it was sent first, so it is before the cancel
    with pytest.raises(LeaseLost):
        await chunk(turns, lease, text, "after")
    with pytest.raises(LeaseLost):
        await turns.write(lease, 2, [CreateMessage(Message(name="after"))])
    with pytest.raises(LeaseLost):
        await finish(turns, lease)
    entries = await log(sessions)
    assert names(entries)[4:] == [
        "+before",
        "+racing",
        "cancel",
        "+ cancelled",
        "step-cancelled",
        "run-cancelled",
    ]
    closing = [entry for entry in entries if entry.position > cancelled.position]
    assert [entry.data for entry in closing if isinstance(entry, Appended)] == [""]
    message = await sessions.history.message(SESSION, text.ref)
    assert (message.data, message.extras) == ("beforeracing", extras(status="cancelled"))
    step_end = entries[-2]
    assert isinstance(step_end, Created)
    assert step_end.messages[0].extras == extras(serial=lease.step_start_serial)


async def test_p3_a_second_cancel_is_the_first(turns: TurnStore, sessions: SessionStore) -> None:
    await started(turns)
    first = await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t1"), CANCEL)
    before = await log(sessions)
    second = await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t1"), CANCEL)
    assert (second.position, second.matched, second.already_ended) == (first.position, (), ("t1",))
    assert await log(sessions) == before


async def test_cancel_after_the_end_says_so(turns: TurnStore) -> None:
    terminal = await finish(turns, await started(turns))
    cancelled = await turns.cancels.cancel(
        SESSION, CancelFilter(Scope.INPUT, "in-t1"), CANCEL, input_turn="t1"
    )
    assert (cancelled.matched, cancelled.already_ended, cancelled.position) == ((), ("t1",), terminal)


async def test_cancel_of_something_unknown_changes_nothing(turns: TurnStore, sessions: SessionStore) -> None:
    await started(turns)
    before = await log(sessions)
    cancelled = await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "nope"), CANCEL, early=False)
    assert cancelled.matched == cancelled.already_ended == ()
    assert await log(sessions) == before


@pytest.mark.parametrize(
    ("cancel", "expected"),
    [
        (CancelFilter(Scope.TURN, "t2"), {"t2"}),
        (CancelFilter(Scope.INPUT, "in-t3"), {"t3"}),
        (CancelFilter(Scope.OWNER, "alice"), {"t1", "t3"}),
        (CancelFilter(Scope.ALL), {"t1", "t2", "t3"}),
    ],
)
async def test_filters(turns: TurnStore, cancel: CancelFilter, expected: set[str]) -> None:
    for turn, owner in (("t1", "alice"), ("t2", "bob"), ("t3", "alice")):
        await turns.submit(request(turn, owner=owner))
    cancelled = await turns.cancels.cancel(SESSION, cancel, CANCEL)
    assert set(cancelled.matched) == expected
    assert {record.turn_id for record in await turns.active(SESSION)} == {"t1", "t2", "t3"} - expected


async def test_a_cancel_that_overtakes_its_send(turns: TurnStore, sessions: SessionStore) -> None:
    await turns.cancels.cancel(SESSION, CancelFilter(Scope.INPUT, "in-t1"), CANCEL)
    accepted = await turns.submit(request("t1"))
    assert accepted.status == "cancelled"
    assert names(await log(sessions)) == ["input", "cancel", "run-start", "run-cancelled"]
    assert await take(turns) is None


async def test_p5_a_repeated_send_is_one_turn(turns: TurnStore, sessions: SessionStore) -> None:
    first = await turns.submit(request("t1"))
    again = await turns.submit(request("t1"))
    assert (again.repeated, again.position) == (True, first.position)
    with pytest.raises(Conflict):
        await turns.submit(request("t1", fingerprint="other"))
    assert names(await log(sessions)) == ["input"]
    assert await take(turns) is not None
    assert await take(turns) is None


async def test_p6_a_worker_that_lost_its_lease_is_refused(turns: TurnStore, sessions: SessionStore) -> None:
    old = await started(turns, lease_ms=1)
    text = await open_text(turns, old)
    await chunk(turns, old, text, "old")
    await expired(turns)
    new = await take(turns, "w2")
    assert new is not None and (new.fence, new.attempt) == (2, 2)
    with pytest.raises(LeaseLost):
        await chunk(turns, old, text, "zombie")
    with pytest.raises(LeaseLost):
        await finish(turns, old)
    await finish(turns, new)
    listed = names(await log(sessions))
    assert "+zombie" not in listed
    assert listed.count("run-start") == 1 and listed.count("step-start") == 2 and listed.count("run-end") == 1


async def expired(turns: TurnStore) -> tuple[str, str, str]:
    bucket = bucket_of(SESSION, turns.keys.buckets)
    async with asyncio.timeout(5):
        while (reaped := await turns.reap(bucket)) is None:
            await asyncio.sleep(0)
    return reaped


async def test_attempts_used_up_end_the_turn_and_leave_a_dead_letter(
    turns: TurnStore, sessions: SessionStore, connection: RedisConnection
) -> None:
    lease = await started(turns, lease_ms=1, max_attempts=2)
    assert await expired(turns) == ("t1", SESSION, "retried")
    again = await take(turns, lease_ms=1000)
    assert again is not None and again.attempt == 2
    # Another turn may have ended the worker: the last attempt is made alone, and counts once it has begun.
    assert again.alone and not lease.alone
    await turns.begin_alone(again)
    bucket = bucket_of(SESSION, turns.keys.buckets)
    assert await turns.renew(bucket, [again], 1) == []
    assert await expired(turns) == ("t1", SESSION, "failed")
    assert names(await log(sessions))[-2:] == ["step-failed", "run-lost"]
    record = await turns.record(SESSION, "t1")
    assert record is not None and record.status == "failed"
    dead = await connection.command("XRANGE", turns.keys.base_of(SESSION) + "dead", "-", "+")
    assert len(dead) == 1 and lease.turn_id.encode() in dead[0][1]


async def test_an_attempt_that_had_not_begun_alone_does_not_count(turns: TurnStore) -> None:
    await started(turns, lease_ms=1, max_attempts=2)
    assert await expired(turns) == ("t1", SESSION, "retried")
    for _ in range(3):
        again = await take(turns, lease_ms=1)
        assert again is not None and again.alone and again.attempt == 2
        assert await expired(turns) == ("t1", SESSION, "retried")
        with pytest.raises(LeaseLost):
            await turns.begin_alone(again)


async def test_what_expired_while_redis_stood_still_is_left_to_its_owner(
    turns: TurnStore, connection: RedisConnection
) -> None:
    lease = await started(turns, lease_ms=1)
    bucket = bucket_of(SESSION, turns.keys.buckets)
    await asyncio.sleep(0.01)
    # Someone looked last before Redis stood still.
    swept = turns.keys.base_of(SESSION) + "swept"
    long_ago = int(time.time() * 1000) - 10_000
    await connection.command("SET", swept, f"{long_ago} 0", "PX", 60_000)
    assert await turns.reap(bucket, grace_ms=300) is None
    assert await turns.renew(bucket, [lease], 1) == []
    await asyncio.sleep(0.01)
    assert await turns.reap(bucket, grace_ms=300) is None
    async with asyncio.timeout(5):
        while (reaped := await turns.reap(bucket, grace_ms=300)) is None:
            await asyncio.sleep(0.01)
    assert reaped == ("t1", SESSION, "retried")


async def test_a_turn_handed_back_does_not_count_as_an_attempt(turns: TurnStore) -> None:
    bucket = bucket_of(SESSION, turns.keys.buckets)
    lease = await started(turns, max_attempts=1)
    assert await turns.hand_back(bucket, lease)
    assert not await turns.hand_back(bucket, lease)
    again = await take(turns, lease_ms=1)
    assert again is not None and again.fence == 2
    record = await turns.record(SESSION, "t1")
    assert record is not None and record.attempts == 1
    assert await expired(turns) == ("t1", SESSION, "failed")
    (letter,) = await DeadLetters(turns, SessionStore(turns.redis, turns.keys)).all()
    assert letter.attempts == 1


async def test_renewing_keeps_the_lease_and_names_what_is_lost(turns: TurnStore) -> None:
    bucket = bucket_of(SESSION, turns.keys.buckets)
    one, two = await started(turns, "t1"), await started(turns, "t2")
    await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t2"), CANCEL)
    assert await turns.renew(bucket, [one, two], LEASE_MS) == ["t2"]
    assert await turns.reap(bucket) is None


async def test_repeated_writes_are_written_once(turns: TurnStore, sessions: SessionStore) -> None:
    lease = await started(turns)
    text = await open_text(turns, lease)
    first = await turns.write(lease, 2, [CreateMessage(Message(name="once"))])
    assert await turns.write(lease, 2, [CreateMessage(Message(name="once"))]) == first
    await chunk(turns, lease, text, "abc")
    repeated = OpenText(text.ref)
    assert await turns.append(lease, repeated, "abc") == b"repeated"
    ahead = OpenText(text.ref, offset=10)
    assert await turns.append(lease, ahead, "x") == b"gap"
    await chunk(turns, lease, text, "d")
    end = await finish(turns, lease)
    assert await finish(turns, lease) == end
    listed = names(await log(sessions))
    assert (listed.count("once"), listed.count("+abc"), listed.count("run-end")) == (1, 1, 1)
    assert (await sessions.history.message(SESSION, text.ref)).data == "abcd"


async def test_p7_a_write_that_comes_late_from_a_connection_that_was_given_up_is_not_written_again(
    turns: TurnStore, sessions: SessionStore
) -> None:
    lease = await started(turns)
    await turns.write(lease, 1, [CreateMessage(Message(name="one"))])
    await turns.write(lease, 2, [CreateMessage(Message(name="two"))])
    with pytest.raises(LeaseLost):
        await turns.write(lease, 1, [CreateMessage(Message(name="one"))])
    await turns.write(lease, 3, [CreateMessage(Message(name="three"))])
    written = [name for name in names(await log(sessions)) if name in ("one", "two", "three")]
    assert written == ["one", "two", "three"]


async def test_policy_interrupt_is_one_step(turns: TurnStore, sessions: SessionStore) -> None:
    lease = await started(turns)
    text = await open_text(turns, lease)
    accepted = await turns.submit(
        request("t2", policy=Policy.INTERRUPT, interrupts=CancelFilter(Scope.OWNER, "alice"))
    )
    assert accepted.interrupted == ("t1",)
    with pytest.raises(LeaseLost):
        await chunk(turns, lease, text, "after")
    assert names(await log(sessions))[4:] == [
        "cancel",
        "+ cancelled",
        "step-cancelled",
        "run-cancelled",
        "input",
    ]
    taken = await take(turns)
    assert taken is not None and taken.turn_id == "t2"


async def test_policy_reject_names_the_active_turn(turns: TurnStore, sessions: SessionStore) -> None:
    await turns.submit(request("t1"))
    with pytest.raises(Busy) as busy:
        await turns.submit(request("t2", policy=Policy.REJECT))
    assert busy.value.info.detail == {"turns": ["t1"]}
    assert names(await log(sessions)) == ["input"]


async def test_policy_queue_runs_in_order(turns: TurnStore) -> None:
    one = await started(turns, policy=Policy.QUEUE)
    for turn in ("t2", "t3"):
        assert (await turns.submit(request(turn, policy=Policy.QUEUE))).status == "queued"
    assert await take(turns) is None
    await finish(turns, one)
    two = await take(turns)
    assert two is not None and two.turn_id == "t2"
    assert await take(turns) is None
    await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t3"), CANCEL)
    await finish(turns, two)
    assert await take(turns) is None


async def test_a_limit_of_active_turns_queues_what_exceeds_it(
    connection: RedisConnection, keys: Keyspace
) -> None:
    turns = TurnStore(connection, keys, StoreOptions(queue_cap=1))
    accepted = [await turns.submit(request(f"t{n}", max_active=2)) for n in range(3)]
    assert [answer.status for answer in accepted] == ["pending", "pending", "queued"]
    with pytest.raises(RateLimited):
        await turns.submit(request("t9", max_active=2))
    first = await take(turns)
    assert first is not None and await take(turns) is not None and await take(turns) is None
    await finish(turns, first)
    third = await take(turns)
    assert third is not None and third.turn_id == "t2"


async def test_int_23_cancel_and_end_have_one_winner(turns: TurnStore, sessions: SessionStore) -> None:
    for number in range(50):
        lease = await started(turns, f"t{number}")
        ending = asyncio.ensure_future(finish(turns, lease))
        cancelling = turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, lease.turn_id), CANCEL)
        ended, cancelled = await asyncio.gather(ending, cancelling, return_exceptions=True)
        assert isinstance(ended, LeaseLost) == bool(getattr(cancelled, "matched", ()))
    listed = names(await log(sessions))
    assert listed.count("run-end") + listed.count("run-cancelled") == 50
