"""Steers, answers, suspension, and cancels that an agent's hook decides, on a real Redis."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from selfhost_transport.errors import Busy, CapabilityError, Conflict, LeaseLost, NotFound, TurnEnded
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import Created
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_inputs import TurnInputs
from selfhost_transport.store.turn_operations import CreateMessage
from selfhost_transport.store.turn_pauses import CancelAsked, TurnPauses
from selfhost_transport.store.turn_store import (
    CancelFilter,
    Lease,
    Policy,
    Scope,
    TurnRequest,
    TurnStore,
)
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from tests.store.continuations import continuation
from tests.store.turns import CANCEL, SESSION, finish, log, names, request, started, take

SUSPEND = [CreateMessage(Message(name="step-end")), CreateMessage(Message(name="suspend"))]


@pytest.fixture
def inputs(connection: RedisConnection, keys: Keyspace) -> TurnInputs:
    return TurnInputs(connection, keys)


@pytest.fixture
def pauses(connection: RedisConnection, keys: Keyspace) -> TurnPauses:
    return TurnPauses(connection, keys)


def said(name: str) -> list[Message]:
    return [Message(name=name)]


async def test_a_turn_waits_for_all_answers_and_goes_on_under_its_id(
    turns: TurnStore, inputs: TurnInputs, pauses: TurnPauses, sessions: SessionStore
) -> None:
    lease = await started(turns)
    assert await pauses.suspend(lease, ["result:1", "result:2"], SUSPEND)
    with pytest.raises(LeaseLost):
        await turns.write(lease, 9, [CreateMessage(Message(name="late"))])
    first = await inputs.answer(SESSION, "t1", said("answer-2"), "result:2", continuation())
    assert first.status == "suspended" and await take(turns) is None
    last = await inputs.answer(SESSION, "t1", said("answer-1"), "result:1", continuation())
    assert last.status == "pending"
    again = await take(turns, "w2")
    assert again is not None and (again.turn_id, again.context, again.attempt) == ("t1", b"ctx2", 1)
    await finish(turns, again)
    assert names(await log(sessions)) == [
        "input", "run-start", "step-start", "step-end", "suspend", "answer-2", "answer-1", "resume", "step-start", "run-end",
    ]  # fmt: skip


async def test_tol_6_an_answer_before_the_suspension_waits_for_it(
    turns: TurnStore, inputs: TurnInputs, pauses: TurnPauses
) -> None:
    lease = await started(turns)
    early = await inputs.answer(SESSION, "t1", said("answer"), "result:1", continuation())
    assert early.status == "active"
    assert not await pauses.suspend(lease, ["result:1"], SUSPEND)
    again = await take(turns)
    assert again is not None and again.context == b"ctx2"


async def test_tol_7_one_of_two_answers_wins(
    turns: TurnStore, inputs: TurnInputs, pauses: TurnPauses, sessions: SessionStore
) -> None:
    lease = await started(turns)
    await pauses.suspend(lease, ["result:1"], SUSPEND)
    answers = [
        inputs.answer(SESSION, "t1", said(f"answer-{n}"), "result:1", continuation()) for n in range(10)
    ]
    results = await asyncio.gather(*answers, return_exceptions=True)
    losers = [result for result in results if isinstance(result, Conflict)]
    assert len(losers) == 9
    assert losers[0].info.detail is not None and losers[0].info.detail["reason"] == "already_resolved"
    assert sum(name.startswith("answer") for name in names(await log(sessions))) == 1
    assert await take(turns) is not None
    assert await take(turns) is None


async def test_inputs_to_turns_that_are_over_or_unknown(
    turns: TurnStore, inputs: TurnInputs, sessions: SessionStore
) -> None:
    await finish(turns, await started(turns))
    before = await log(sessions)
    with pytest.raises(TurnEnded):
        await inputs.steer(SESSION, "t1", said("steer"))
    with pytest.raises(TurnEnded):
        await inputs.answer(SESSION, "t1", said("answer"), "result:1", continuation())
    with pytest.raises(NotFound):
        await inputs.steer(SESSION, "nope", said("steer"))
    assert await log(sessions) == before


async def test_a_suspended_turn_can_be_cancelled_and_keeps_no_one_waiting(
    turns: TurnStore, inputs: TurnInputs, pauses: TurnPauses, sessions: SessionStore
) -> None:
    lease = await started(turns, policy=Policy.QUEUE)
    assert (await turns.submit(request("t2", policy=Policy.QUEUE))).status == "queued"
    await pauses.suspend(lease, ["approval:1"], SUSPEND)
    second = await take(turns)
    assert second is not None and second.turn_id == "t2"
    assert (await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t1"), CANCEL)).matched == ("t1",)
    assert names(await log(sessions))[-2:] == ["cancel", "run-cancelled"]
    with pytest.raises(TurnEnded):
        await inputs.answer(SESSION, "t1", said("late"), "approval:1", continuation())
    await finish(turns, second)
    assert (await turns.submit(request("t3", policy=Policy.REJECT))).status == "pending"


async def test_a_suspension_ends_at_its_limit(
    turns: TurnStore, inputs: TurnInputs, pauses: TurnPauses, sessions: SessionStore
) -> None:
    lease = await started(turns)
    await pauses.suspend(
        lease,
        ["result:1", "result:2"],
        SUSPEND,
        limit_ms=1,
        expiry_answers={"result:1": Message(name="timeout-1"), "result:2": Message(name="timeout-2")},
        continuation=continuation("resume-after-limit"),
    )
    await inputs.answer(SESSION, "t1", said("answer-2"), "result:2", continuation("resume-by-answer"))
    async with asyncio.timeout(5):
        while (due := await pauses.expire(bucket_of(SESSION, turns.keys.buckets))) is None:
            await asyncio.sleep(0)
    assert due == ("t1", SESSION, "resumed")
    assert await take(turns) is not None
    listed = names(await log(sessions))
    assert "timeout-1" in listed and "timeout-2" not in listed
    with pytest.raises(Conflict):
        await inputs.answer(SESSION, "t1", said("late"), "result:1", continuation())


async def test_ste_8_a_turn_does_not_end_over_a_waiting_steer(
    turns: TurnStore, inputs: TurnInputs, pauses: TurnPauses
) -> None:
    lease = await started(turns)
    assert await pauses.drain(lease) == []
    one = await inputs.steer(SESSION, "t1", said("steer"), publish_id="id")
    again = await inputs.steer(SESSION, "t1", said("steer"), publish_id="id")
    assert (again.repeated, again.position) == (True, one.position)
    end = [CreateMessage(Message(name="run-end"))]
    assert await turns.end(lease, "completed", end, unless_steered=True) is None
    assert [ref.position for ref in await pauses.drain(lease)] == [one.position]
    assert await turns.end(lease, "completed", end, unless_steered=True) is not None


async def test_ste_8_races_at_the_finish_line(
    turns: TurnStore, inputs: TurnInputs, pauses: TurnPauses
) -> None:
    for number in range(40):
        lease = await started(turns, f"t{number}")
        end = turns.end(lease, "completed", [CreateMessage(Message(name="run-end"))], unless_steered=True)
        steer = inputs.steer(SESSION, lease.turn_id, said("steer"))
        first, second = (end, steer) if number % 2 else (steer, end)
        results = await asyncio.gather(first, second, return_exceptions=True)
        ended, steered = results if number % 2 else results[::-1]
        assert (ended is None) == (not isinstance(steered, TurnEnded))
        if ended is None:
            assert len(await pauses.drain(lease)) == 1
            await finish(turns, lease)


async def asked(turns: TurnStore, default: str = "allow", grace_ms: int = 60_000) -> Lease:
    await turns.submit(request("t1"))
    bucket = bucket_of(SESSION, turns.keys.buckets)
    lease = await turns.take(bucket, "a", "w1", 10_000, hook_grace_ms=grace_ms, hook_default=default)
    assert lease is not None
    cancelled = await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t1"), CANCEL)
    assert (cancelled.matched, cancelled.asked) == (("t1",), ("t1",))
    return lease


async def test_can_10_a_closing_note_is_the_last_content(
    turns: TurnStore, pauses: TurnPauses, sessions: SessionStore
) -> None:
    lease = await asked(turns)
    sealed = await pauses.decide(lease, allow=True, message=Message(name="cancelling"), grace_ms=60_000)
    with pytest.raises(LeaseLost):
        await turns.write(lease, 1, [CreateMessage(Message(name="content"))])
    closing_note = replace(lease, fence=f"{lease.fence}n")
    await turns.write(closing_note, 2, [CreateMessage(Message(name="note"))])
    await turns.end(closing_note, "cancelled", [CreateMessage(Message(name="run-end"))])
    entries = await log(sessions)
    assert names(entries)[-4:] == ["cancel", "cancelling", "note", "run-end"]
    assert entries[-3].position == sealed
    record = await turns.record(SESSION, "t1")
    assert record is not None and (record.status, record.cancel_position) == ("cancelled", sealed)


async def test_a_worker_reads_what_its_hook_is_asked_about(turns: TurnStore, pauses: TurnPauses) -> None:
    """Other turns that the same cancel names are among it; those of another cancel are not."""
    for turn, owner in (("t1", "alice"), ("t2", "bob"), ("t3", "alice")):
        await turns.submit(request(turn, owner=owner))
    bucket = bucket_of(SESSION, turns.keys.buckets)
    leases = [await turns.take(bucket, "a", "w1", 10_000, hook_grace_ms=60_000) for _ in range(3)]
    mine = next(lease for lease in leases if lease is not None and lease.turn_id == "t1")
    assert await pauses.asked(mine) is None
    await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t3"), CANCEL)
    cancelled = await turns.cancels.cancel(
        SESSION, CancelFilter(Scope.ALL), replace(CANCEL, client_id="carol")
    )
    asked = await pauses.asked(mine)
    assert asked == CancelAsked("carol", cancelled.position, {"t1": "alice", "t2": "bob"})
    await pauses.decide(mine, allow=False, message=Message(name="denied"), grace_ms=0)
    assert await pauses.asked(mine) is None


async def test_can_7_a_denied_cancel_leaves_the_turn_as_it_was(turns: TurnStore, pauses: TurnPauses) -> None:
    lease = await asked(turns)
    await pauses.decide(lease, allow=False, message=Message(name="denied"), grace_ms=0)
    await turns.write(lease, 1, [CreateMessage(Message(name="content"))])
    assert await finish(turns, lease) is not None


@pytest.mark.parametrize(
    ("default", "expected", "written"),
    [("allow", "cancelled", "run-cancelled"), ("deny", "active", h.AI_CANCEL_DENIED)],
)
async def test_can_11_a_hook_that_never_decides(
    turns: TurnStore, pauses: TurnPauses, sessions: SessionStore, default: str, expected: str, written: str
) -> None:
    """Its outcome is in the session in the same step: no process can be lost between both."""
    await asked(turns, default, grace_ms=1)
    async with asyncio.timeout(5):
        while await pauses.expire(bucket_of(SESSION, turns.keys.buckets)) is None:
            await asyncio.sleep(0)
    record = await turns.record(SESSION, "t1")
    assert record is not None and record.status == expected
    last = (await log(sessions))[-1]
    assert isinstance(last, Created) and last.messages[-1].name == written
    if written == h.AI_CANCEL_DENIED:
        headers = h.read_headers(last.messages[-1])
        assert headers is not None and headers.run_id == "t1"
        assert headers.get(h.ERROR_MESSAGE) == "the agent did not decide in time"
        assert headers.get(h.CANCEL_CLIENT_ID) == (CANCEL.client_id or "")


async def test_an_operator_does_not_ask(turns: TurnStore) -> None:
    lease = await asked(turns)
    await turns.cancels.cancel(SESSION, CancelFilter(Scope.ALL), CANCEL, force=True)
    with pytest.raises(LeaseLost):
        await finish(turns, lease)


async def test_dbl_13_texts_that_wait_together_become_one_turn(
    turns: TurnStore, sessions: SessionStore
) -> None:
    one = await started(turns, policy=Policy.MERGE)
    for turn in ("t2", "t3", "t4"):
        assert (await turns.submit(request(turn, policy=Policy.MERGE))).status == "queued"
    assert {record.turn_id for record in await turns.active(SESSION)} == {"t1", "t4"}
    await finish(turns, one)
    last = await take(turns)
    assert last is not None and last.turn_id == "t4"
    assert await take(turns) is None
    assert names(await log(sessions)).count("run-merged") == 2


async def test_a_waiting_turn_can_be_started_before_the_others(turns: TurnStore, inputs: TurnInputs) -> None:
    await started(turns)
    for turn in ("t2", "t3"):
        await turns.submit(request(turn, policy=Policy.QUEUE))
    assert await inputs.waiting(SESSION) == ["t2", "t3"]
    assert await inputs.promote(SESSION, "t3")
    assert not await inputs.promote(SESSION, "t3")
    third = await take(turns)
    assert third is not None and third.turn_id == "t3"
    assert await inputs.waiting(SESSION) == ["t2"]
    with pytest.raises(NotFound):
        await inputs.promote(SESSION, "nope")


async def test_without_the_right_to_cancel_a_send_ends_its_owners_suspended_turn_only(
    turns: TurnStore, pauses: TurnPauses, sessions: SessionStore
) -> None:
    def fork(turn: str, owner: str) -> TurnRequest:
        return request(
            turn, owner=owner, policy=Policy.INTERRUPT, interrupts=CancelFilter(Scope.TURN, "t1"),
            interrupts_own_suspended=True,
        )  # fmt: skip

    lease = await started(turns)
    before = await log(sessions)
    for owner in ("alice", "eve", ""):
        with pytest.raises(CapabilityError) as refused:
            await turns.submit(fork(f"fork-{owner}", owner))
        assert refused.value.info.detail == {"turn": "t1"}
    assert await log(sessions) == before
    await pauses.suspend(lease, ["result:1"], SUSPEND)
    for owner in ("eve", ""):
        with pytest.raises(CapabilityError):
            await turns.submit(fork(f"fork-{owner}", owner))
    assert (await turns.submit(fork("fork", "alice"))).interrupted == ("t1",)
    # What has ended is no one's to end.
    assert (await turns.submit(fork("late", "eve"))).interrupted == ()


async def test_a_turn_is_promoted_by_its_owner_and_within_the_limit(
    turns: TurnStore, inputs: TurnInputs
) -> None:
    lease = await started(turns)
    await turns.submit(request("t2", policy=Policy.QUEUE))
    for owner in ("eve", ""):
        with pytest.raises(CapabilityError):
            await inputs.promote(SESSION, "t2", owner=owner)
        with pytest.raises(CapabilityError):
            await inputs.promote(SESSION, "t1", owner=owner)
    with pytest.raises(Busy) as full:
        await inputs.promote(SESSION, "t2", owner="alice", max_active=1)
    assert full.value.info.detail == {"running": 1}
    assert await inputs.waiting(SESSION) == ["t2"]
    assert await inputs.promote(SESSION, "t2", owner="alice", max_active=2)
    await finish(turns, lease)
