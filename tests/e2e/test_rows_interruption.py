"""Rows INT: cancelling, interrupting, sending alongside."""

from __future__ import annotations

import asyncio
import random

import pytest

from selfhost_transport import ClientTransport, Turn, TurnStatus
from selfhost_transport.client import Entry, RunInfo
from selfhost_transport.turns import headers as h
from tests.e2e.conftest import Build
from tests.e2e.proxy import Network
from tests.e2e.stage import (
    CREW,
    Stage,
    assert_exact,
    each,
    position_of,
    scaled,
    script,
    streamed,
    token_seen,
    tokens_of,
    turn_id,
)
from tests.processes import wait_until
from tests.promptness import prompt, within
from tests.worker.session import run_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_int_1_no_token_after_cancel(stage: Stage) -> None:
    session, count, chance = stage.session(), scaled(300, 60), random.Random(1)
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:

        async def cancel_sometime(number: int) -> None:
            await asyncio.sleep(chance.uniform(0, 1.5))
            turn = await client.view.send(script(2000, 50))
            await asyncio.sleep(chance.uniform(0, 1.5))
            canceller = client if number % 2 else other
            result = await canceller.cancel(turn.turn_id)
            assert result.matched == (turn.turn_id,)
            await turn.ended
            cancelled[turn_id(turn)] = result.position

        cancelled: dict[str, str] = {}
        await each([cancel_sometime(number) for number in range(count)])
    log = await stage.log(session)
    assert len(cancelled) == count
    for turn, position in cancelled.items():
        after = [p for p in log.content(turn) if p > position_of(position)]
        assert after == [], f"{len(after)} tokens of {turn} after its cancel"
        assert log.ends(turn) == ["cancelled"]


async def test_int_2_cancel_then_send(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        connection = client.connection_id
        states: list[str] = []
        client.on("state", lambda change: states.append(change.current))
        first = await client.view.send(script(500, 50))
        await token_seen(first, 3)
        await client.cancel()
        second = await client.view.send(script(50, 50))
        await second.ended
        assert_exact(second, 50)
        assert client.connection_id == connection and states == []
        log = await stage.log(session)
        assert (log.ends(turn_id(first)), log.ends(turn_id(second))) == (["cancelled"], ["complete"])


@prompt
async def test_int_3_a_new_turn_does_not_wait_for_the_old_one(stage: Stage) -> None:
    async with stage.connect(stage.session()) as client:
        first = await client.view.send(script(100, 200, hang_at=20))
        await token_seen(first, 20)
        await client.cancel()
        async with within(0.5):
            second = await client.view.send(script(20, 50))
            await token_seen(second)
        await second.ended
        assert_exact(second, 20)


async def test_int_4_send_alongside(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        turns = [await client.view.send(script(50, 100)) for _ in range(2)]
        texts = await asyncio.gather(*(streamed(turn) for turn in turns))
        for turn, text in zip(turns, texts, strict=True):
            assert_exact(turn, 50)
            assert text == turn.text
        log = await stage.log(session)
        first, second = (log.content(turn_id(turn)) for turn in turns)
        assert first[0] < second[-1] and second[0] < first[-1]


async def test_int_5_cancel_one_of_several(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        turns = [await client.view.send(script(60, 60)) for _ in range(3)]
        await token_seen(turns[1], 5)
        result = await client.cancel(turns[1].turn_id)
        assert result.matched == (turns[1].turn_id,)
        await client.wait_for_turn(all=True)
        for turn in (turns[0], turns[2]):
            assert_exact(turn, 60)
        log = await stage.log(session)
        assert [log.ends(turn_id(turn)) for turn in turns] == [["complete"], ["cancelled"], ["complete"]]


async def test_int_6_bare_cancel_means_my_own(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        mine, theirs = await one.view.send(script(40, 40)), await two.view.send(script(40, 40))
        await token_seen(mine, 2)
        assert (await one.cancel()).matched == (mine.turn_id,)
        await theirs.ended
        assert_exact(theirs, 40)
        assert mine.status is TurnStatus.CANCELLED and mine.own and not two.turn(turn_id(mine)).own


@prompt
async def test_int_7_active_turns_on_every_client(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        assert one.active_turns == two.active_turns == {}
        turn = await one.view.send(script(20, 50))
        started = {"user-1": {turn.turn_id}, "assistant": {turn.turn_id}}
        async with within(0.25):
            await wait_until(lambda: one.active_turns == two.active_turns == started)
        await turn.ended
        async with within(0.25):
            await wait_until(lambda: one.active_turns == two.active_turns == {})


async def test_int_8_active_turns_by_agent(stage: Stage) -> None:
    worker = await stage.add_worker(CREW)
    async with stage.connect(stage.session("crew")) as client:
        turn = await client.view.send(script(30, 60))
        await turn.started
        assert client.active_turns.get("agent-1") == client.active_turns.get("user-1") == {turn.turn_id}
        await turn.ended
        assert client.active_turns == {}
    worker.terminate()


async def test_int_10_tokens_in_flight_belong_to_the_cancelled_turn(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        first = await client.view.send(script(2000, 500))
        await token_seen(first, 50)
        entries: list[Entry] = []
        client.on("entry", entries.append)
        result = await client.cancel()
        seen_by_then = len(entries)
        second = await client.view.send(script(30, 100))
        await second.ended
        for entry in entries[seen_by_then:]:
            if run_of(entry.message) == first.turn_id:
                assert not entry.message.data or position_of(entry.position) < position_of(result.position)
        assert_exact(second, 30)
        tokens_of(first.text)


async def test_int_14_and_15_a_network_drop_cancels_nothing(stage: Stage) -> None:
    session, seconds = stage.session(), scaled(10, 3)
    async with Network(stage.gateways[0].port) as network, stage.connect(session) as observer:
        client = await ClientTransport.connect(
            network.url, key="test.key:secret-of-the-tests", client_id="user-1", channel=session
        )
        lasting = await client.view.send(script(seconds * 160, 50))
        short = await client.view.send(script(50, 50))
        reading = asyncio.create_task(streamed(lasting))
        await token_seen(lasting, 5)
        network.cut()
        await wait_until(lambda: not client.connected)
        await observer.turn(turn_id(short)).ended
        await asyncio.sleep(seconds)
        network.mend()
        await wait_until(lambda: client.connected, 20)
        await wait_until(lambda: short.status.is_terminal)
        # INT-15: whether to show Stop follows from what is active, and why the other one ended is known.
        assert client.active_turns["user-1"] == {lasting.turn_id}
        assert short.status is TurnStatus.COMPLETED
        await lasting.ended
        assert_exact(lasting, seconds * 160)
        assert await reading == lasting.text
        await client.close()
    assert (await stage.log(session)).created(h.AI_CANCEL) == []


@prompt
async def test_int_17_cancelled_is_an_explicit_event(stage: Stage) -> None:
    async with stage.connect(stage.session()) as client:
        turn = await client.view.send(script(100, 100, hang_at=10))
        await token_seen(turn, 10)
        ends: list[RunInfo] = []
        client.on("turn", lambda info: ends.append(info) if info.status.is_terminal else None)
        async with within(1.0):
            await client.cancel()
            await turn.ended
        assert [(info.run_id, info.status) for info in ends] == [(turn.turn_id, TurnStatus.CANCELLED)]


async def test_int_18_the_partial_answer_is_kept_and_labelled(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(500, 100))
        await token_seen(turn, 10)
        await client.cancel()
        await turn.ended
    kept = [output for output in await stage.room(session).outputs(turn_id(turn)) if output.kind == "text"]
    assert [output.status for output in kept] == ["cancelled"]
    assert kept[0].text == turn.text and tokens_of(turn.text) >= 10
    async with stage.connect(session, "user-2") as late:
        assert late.view.messages[-1].message.text == turn.text
        assert late.turns()[0].status is TurnStatus.CANCELLED


@prompt
async def test_int_19_any_device_may_cancel(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        turn = await one.view.send(script(500, 100))
        await token_seen(two.turn(turn_id(turn)), 3)
        result = await two.cancel(turn.turn_id)
        assert result.matched == (turn.turn_id,)
        async with within(1.0):
            assert (await turn.ended).status is TurnStatus.CANCELLED


@prompt
async def test_int_20_and_21_cancel_and_send_without_any_worker(build: Build) -> None:
    stage = await build()
    session = stage.session()
    async with stage.connect(session) as client:
        before = await client.view.send(script(10, 0))
        await before.ended
        turn = await client.view.send(script(5000, 50))
        await token_seen(turn, 5)
        stage.workers.pop().kill()
        prefix = (await stage.log(session)).entries
        async with within(1.0):
            await client.cancel()
            assert (await turn.ended).status is TurnStatus.CANCELLED
        after = await client.view.send(script(20, 100))
        assert after.accepted.done and after.status is TurnStatus.PENDING
        # INT-21: what was there is there.
        assert (await stage.log(session)).entries[: len(prefix)] == prefix
        assert_exact(before, 10)
        async with stage.connect(session, "user-2", gateway=1) as other:
            seen = [shown.message.text for shown in other.view.messages]
        assert seen[:2] == [script(10, 0), before.text]
        await stage.add_worker()
        await after.ended
        assert_exact(after, 20)
        log = await stage.log(session)
        assert log.ends(turn_id(after)) == ["complete"] and log.ends(turn_id(turn)) == ["cancelled"]
        starts = [m for _, m in log.of_turn(turn_id(after)) if m.name == h.AI_RUN_START]
        assert len(starts) == 1


async def test_int_22_cancel_twice_is_one_cancel(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        turn = await client.view.send(script(500, 100))
        await token_seen(turn, 3)
        results = await asyncio.gather(client.cancel(turn.turn_id), other.cancel(turn.turn_id))
        again = await client.cancel(turn.turn_id)
        assert {result.position for result in (*results, again)} == {again.position}
        assert sorted(len(result.matched) for result in results) == [0, 1]
        assert again.already_ended == (turn.turn_id,)
        log = await stage.log(session)
        assert len(log.created(h.AI_CANCEL)) == 1
        assert log.ends(turn_id(turn)) == ["cancelled"]


async def test_int_23_cancel_racing_completion_has_one_winner(stage: Stage) -> None:
    session, count, chance = stage.session(), scaled(500, 80), random.Random(2)
    lost = 0
    async with stage.connect(session) as client:

        async def race(turn: Turn) -> None:
            nonlocal lost
            await asyncio.sleep(0.1 + chance.uniform(-0.03, 0.06))
            result = await client.cancel(turn.turn_id)
            assert result.matched + result.already_ended == (turn.turn_id,)
            await turn.ended
            if result.already_ended:
                lost += 1
                assert turn.status is TurnStatus.COMPLETED
                assert_exact(turn, 10)
            else:
                assert turn.status is TurnStatus.CANCELLED

        turns: list[Turn] = []
        for _ in range(0, count, 20):
            batch = [client.view.start(script(10, 100)) for _ in range(20)]
            turns += batch
            await each([race(turn) for turn in batch])
        log = await stage.log(session)
        for turn in turns:
            expected = "complete" if turn.status is TurnStatus.COMPLETED else "cancelled"
            assert log.ends(turn_id(turn)) == [expected]


async def test_int_24_interrupt_is_atomic_whenever_the_gateway_dies(build: Build) -> None:
    chance = random.Random(3)
    stage = await build()
    for _ in range(scaled(20, 4)):
        session = stage.session()
        async with stage.connect(session) as client:
            first = await client.view.send(script(3000, 100))
            await token_seen(first, 2)
            interrupting = asyncio.create_task(client.interrupt(script(10, 100), id="interruption"))
            await asyncio.sleep(chance.uniform(0, 0.004))
            victim = stage.gateways[0]
            victim.kill()
            second = await interrupting
            await second.ended
            assert_exact(second, 10)
            log = await stage.log(session)
            assert log.ends(turn_id(first)) == ["cancelled"] and log.ends(turn_id(second)) == ["complete"]
            # The message, and the end of the turn it interrupts, stand at one place in the log.
            names = [message.name for _, message in log.created() if message.name != h.AI_OUTPUT]
            assert names.count(h.AI_INPUT) == 2 and names.count(h.AI_CANCEL) == 1
        await victim.wait()
        stage.gateways.remove(victim)
        await stage.add_gateway()


@prompt
async def test_int_24_interrupt_on_a_quiet_stage(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client, stage.connect(session, "user-2") as other:
        theirs = await other.view.send(script(60, 60))
        mine = await client.view.send(script(2000, 60))
        await token_seen(mine, 2)
        async with within(2.0):
            await _interrupt(client, mine)
        await theirs.ended
        assert_exact(theirs, 60)


async def _interrupt(client: ClientTransport, interrupted: Turn) -> None:
    turn = await client.interrupt(script(10, 100))
    receipt = await turn.accepted
    assert receipt.interrupted == (interrupted.turn_id,)
    await turn.ended
    assert_exact(turn, 10)
    assert interrupted.status is TurnStatus.CANCELLED


async def test_int_25_the_model_sees_what_it_was_interrupted_in(stage: Stage) -> None:
    async with stage.connect(stage.session()) as client:
        first = await client.view.send(script(1000, 50))
        await token_seen(first, 5)
        await client.cancel()
        await first.ended
        second = await client.view.send("script: echo_context=1")
        await second.ended
        assert script(1000, 50) in second.text
        assert first.text.strip() in second.text
        assert '"interrupted":true' in second.text


async def test_int_27_others_do_not_blink(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        trouble: list[object] = []
        two.on("state", trouble.append)
        two.on("discontinuity", trouble.append)
        two.on("error", trouble.append)
        cancelled = await one.view.send(script(500, 100))
        watched = await two.view.send(script(100, 100))
        reading = asyncio.create_task(streamed(watched))
        await token_seen(cancelled, 5)
        await one.cancel()
        text = await reading
        assert_exact(watched, 100)
        assert text == watched.text and trouble == []
