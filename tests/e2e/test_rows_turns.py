"""Rows TRN: what a turn is, from the sender's intent to its one terminal."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter

import pytest

from selfhost_transport import Turn, TurnStatus
from selfhost_transport.client import RunInfo
from selfhost_transport.errors import TransportError, TurnEnded
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.turns import headers as h
from tests.e2e.conftest import Build
from tests.e2e.stage import (
    CREW,
    KEY,
    Log,
    Stage,
    assert_exact,
    each,
    scaled,
    script,
    streamed,
    token_seen,
    turn_id,
)
from tests.processes import wait_until
from tests.promptness import prompt, within
from tests.turn_transitions import TurnEvent, advance
from tests.worker.session import ENDED, header, run_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

# A worker that a busy machine keeps waiting for a second or two keeps its turns.
SHORT_LEASE = {f"{ENV_PREFIX}LEASE_MS": "3000"}
# Lease, grace, the reaper's rounds, and a machine that other tests use too.
TAKEN_OVER_S = 30.0

_EVENTS = {
    h.AI_RUN_START: TurnEvent.START,
    h.AI_RUN_SUSPEND: TurnEvent.SUSPEND,
    h.AI_RUN_RESUME: TurnEvent.RESUME,
}
_ENDINGS = {
    h.COMPLETE: TurnEvent.COMPLETE,
    h.CANCELLED: TurnEvent.CANCEL,
    h.ERROR: TurnEvent.FAIL,
}


def assert_legal(log: Log, turn: str) -> None:
    """Replay a turn's life cycle from the log; an illegal move raises (TRN-4)."""
    status = TurnStatus.PENDING
    started = False
    for _, message in log.of_turn(turn):
        event = _EVENTS.get(message.name or "")
        if message.name == h.AI_RUN_END:
            event = _ENDINGS[str(header(message, h.RUN_REASON))]
        if event is TurnEvent.START:
            assert not started, f"{turn} was started twice"
            started = True
        if event is not None:
            status = advance(status, event)
    assert status.is_terminal, f"{turn} is {status} in the log"


async def test_trn_1_and_2_entries_carry_the_id_between_request_start_and_end(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        turns = [await client.view.send(script(10, 100)) for _ in range(3)]
        await client.wait_for_turn(all=True)
    assert len({turn.turn_id for turn in turns}) == 3
    log = await stage.log(session)
    for turn in turns:
        entries = log.of_turn(turn_id(turn))
        assert entries[0][1].name == h.AI_RUN_START and entries[-1][1].name == h.AI_RUN_END
        (request,) = [
            position
            for position, message in log.created(h.AI_INPUT)
            if header(message, h.CODEC_MESSAGE_ID) == turn.input_codec_message_id
        ]
        assert request < entries[0][0]
    known = {turn.turn_id for turn in turns}
    assert {run_of(message) for _, message in log.created() if message.name != h.AI_INPUT} == known


@prompt
async def test_trn_3_visible_before_any_agent_works(build: Build) -> None:
    stage = await build(workers=0)
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        turn = await one.view.send("hello")
        async with within(0.25):
            await wait_until(lambda: two.active_turns == {"user-1": {turn.turn_id}})
        seen = two.turn(turn_id(turn))
        assert (seen.status, seen.owner, seen.own) == (TurnStatus.PENDING, "user-1", False)
        # TRN-8, the pending one: it ends and never starts.
        await two.cancel(turn.turn_id)
        assert (await turn.ended).status is TurnStatus.CANCELLED
        await stage.add_worker()
        other = await one.view.send(script(5, 0))
        await other.ended
        log = await stage.log(session)
        assert log.ends(turn_id(turn)) == ["cancelled"] and log.content(turn_id(turn)) == []


async def test_trn_4_only_legal_moves(stage: Stage) -> None:
    session, chance = stage.session(), random.Random(4)
    texts = [
        script(20, 100),
        script(5, 0),
        script(50, 100, fail_at=10, always=1),
        script(50, 50, hang_at=3),
        "hello",
    ]
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:

        async def live() -> str:
            await asyncio.sleep(chance.uniform(0, 1))
            turn = chance.choice([client, other]).view.start(chance.choice(texts))
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(chance.uniform(0, 0.3))
                await client.cancel(turn.turn_id)
            await asyncio.sleep(chance.uniform(0, 0.5))
            if chance.random() < 0.5:
                await turn.cancel()
            await asyncio.sleep(1)
            await turn.cancel()
            await turn.ended
            return turn_id(turn)

        turns = await asyncio.gather(*(live() for _ in range(scaled(300, 60))))
    log = await stage.log(session)
    for turn in turns:
        assert_legal(log, turn)
        assert len(log.ends(turn)) == 1


async def test_trn_5_one_terminal_whatever_dies(build: Build, own_redis: EmbeddedRedis) -> None:
    stage = await build(own_redis.url, gateways=2, workers=2, env=SHORT_LEASE)
    sessions = [stage.session() for _ in range(3)]
    chance = random.Random(5)
    async with (
        stage.connect(sessions[0]) as a,
        stage.connect(sessions[1], gateway=1) as b,
        stage.connect(sessions[2]) as c,
    ):
        turns: list[Turn] = []
        killing = asyncio.create_task(_chaos(stage, own_redis, scaled(6, 1)))
        while not killing.done():
            client = chance.choice((a, b, c))
            turns.append(client.view.start(script(chance.randrange(1, 60), 50)))
            await asyncio.sleep(0.1)
        await killing
        for turn in turns:
            await turn.accepted
        await each([client.wait_for_turn(all=True) for client in (a, b, c)])
        for session, client in zip(sessions, (a, b, c), strict=True):
            log = await stage.log(session)
            mine = [turn for turn in turns if turn_id(turn) in {info.run_id for info in client.turns()}]
            assert mine
            for turn in mine:
                assert len(log.ends(turn_id(turn))) == 1, turn
                assert_legal(log, turn_id(turn))


async def _chaos(stage: Stage, redis: EmbeddedRedis, rounds: int) -> None:
    """Kill each kind of process in turn, and bring it back."""
    for _ in range(rounds):
        await asyncio.sleep(0.7)
        stage.workers.pop(0).kill()
        await stage.add_worker()
        await asyncio.sleep(0.7)
        victim = stage.gateways[0]
        port = victim.port
        victim.kill()
        await victim.wait()
        await asyncio.sleep(0.3)
        stage.gateways[0] = await stage.stack.gateway(port=port, config=stage.config, env=stage.env)
        await asyncio.sleep(0.7)
        await asyncio.to_thread(redis.stop)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(redis.start)
        await asyncio.sleep(0.7)


async def test_trn_6_terminal_reasons(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client, stage.connect(session, "user-2") as other:
        complete = await client.view.send(script(3, 0))
        cancelled = await client.view.send(script(100, 50))
        failed = await client.view.send(script(10, 100, fail_at=5, always=1))
        await token_seen(cancelled)
        await cancelled.cancel()
        await client.wait_for_turn()
        log = await stage.log(session)
        reasons = [log.ends(turn_id(turn)) for turn in (complete, cancelled, failed)]
        assert reasons == [["complete"], ["cancelled"], ["error"]]
        assert failed.error is not None and "token 5" in failed.error.message
        await wait_until(lambda: other.turn(turn_id(failed)).status.is_terminal)
        seen = [other.turn(turn_id(turn)).status for turn in (complete, cancelled, failed)]
        assert seen == [TurnStatus.COMPLETED, TurnStatus.CANCELLED, TurnStatus.FAILED]


async def test_trn_7_an_ended_turn_never_restarts(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(3, 0))
        await turn.ended
        before = (await stage.log(session)).entries
        with pytest.raises(TurnEnded):
            await turn.steer("and another thing")
        with pytest.raises(TurnEnded):
            await turn.answer_tool(turn.messages[-1].codec_message_id, "call-1", {"a": 1})
        with pytest.raises(TurnEnded):
            await turn.approve(turn.messages[-1].codec_message_id, "call-1")
        assert (await stage.log(session)).entries == before
        assert turn.status is TurnStatus.COMPLETED


async def test_trn_8_cancellable_while_queued_and_active(stage: Stage) -> None:
    session = stage.session("queue")
    async with stage.connect(session) as client:
        active = await client.view.send(script(500, 50))
        queued = await client.view.send(script(5, 0))
        assert (await queued.accepted).status == "queued"
        await token_seen(active)
        await queued.cancel()
        assert (await queued.ended).status is TurnStatus.CANCELLED
        await active.cancel()
        assert (await active.ended).status is TurnStatus.CANCELLED
        log = await stage.log(session)
        assert log.content(turn_id(queued)) == []


async def test_trn_10_retries_exhausted_end_in_error(build: Build) -> None:
    stage = await build(env={f"{ENV_PREFIX}RETRY_ERRORS": "true"})
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(20, 100, fail_at=10, always=1))
        await turn.ended
        assert turn.status is TurnStatus.FAILED
        assert turn.error is not None and "token 10" in turn.error.message
        assert turn.info is not None and [step.attempt_count for step in turn.info.steps] == [3]
        assert (await stage.log(session)).ends(turn_id(turn)) == ["error"]
        # TRN-9: a failed attempt is not a failed turn, and only the second one shows.
        again = await client.view.send(script(20, 100, fail_at=10))
        text = await streamed(again)
        assert again.status is TurnStatus.COMPLETED
        assert_exact(again, 20)
        assert text == again.text and client.view.messages[-1].message.text == again.text


SENDER = """
import asyncio, os, signal, sys
from selfhost_transport import ClientTransport
async def main():
    url, key, session, text = sys.argv[1:]
    async with ClientTransport.connect(url, key=key, client_id="sender", channel=session) as client:
        turn = await client.view.send(text)
        print("sent", turn.turn_id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_trn_11_streaming_does_not_need_the_sender(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "user-2", gateway=1) as other:
        arguments = (stage.gateways[0].url, KEY, session, script(50, 50))
        sender = await stage.stack.run(sys.executable, "-c", SENDER, *arguments)
        assert await sender.wait() == -9
        turn = other.turn(sender.lines[-1].split()[1])
        assert (await turn.ended).status is TurnStatus.COMPLETED
        assert_exact(turn, 50)


async def test_trn_13_no_message_without_its_turn(build: Build) -> None:
    stage, chance, count = await build(workers=0), random.Random(6), scaled(1000, 200)
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:

        async def kill_gateways() -> None:
            while True:
                await asyncio.sleep(chance.uniform(0.3, 0.8))
                at = chance.randrange(2)
                port = stage.gateways[at].port
                stage.gateways[at].kill()
                await stage.gateways[at].wait()
                stage.gateways[at] = await stage.stack.gateway(port=port, config=stage.config)

        killing = asyncio.create_task(kill_gateways())
        turns: list[Turn] = []
        for number in range(count):
            turns.append((one, two)[number % 2].view.start(f"message {number}"))
            await asyncio.sleep(0.015)
        async with within(30):
            for turn in turns:
                await turn.accepted
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
    log, room = await stage.log(session), stage.room(session)
    written = Counter(str(header(message, h.CODEC_MESSAGE_ID)) for _, message in log.created(h.AI_INPUT))
    assert set(written) == {turn.input_codec_message_id for turn in turns}
    assert set(written.values()) == {1}
    assert {record.turn_id for record in await room.turns.active(session)} == {t.turn_id for t in turns}


async def test_trn_14_the_same_send_retried_is_one_turn(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await client.view.send(script(20, 100), id="once")
        turn = await client.view.send(script(20, 100), id="once")
        first = await turn.accepted
    # Another device of the same user, with nothing in common but the id.
    async with stage.connect(session, gateway=1) as client:
        again = await client.view.send(script(20, 100), id="once")
        second = await again.accepted
        assert (first.id, second.id, second.repeated) == (turn.turn_id, turn.turn_id, True)
        await again.ended
        assert_exact(again, 20)
        assert len(client.turns()) == 1 and len(client.view.messages) == 2
    assert len((await stage.log(session)).created(h.AI_INPUT)) == 1


@prompt
async def test_trn_18_waiting_by_filter(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        async with within(0.2):
            await one.wait_for_turn()
            await one.wait_for_turn(all=True)
            await one.wait_for_turn("no-such-turn")
        mine = [await one.view.send(script(n, 50)) for n in (10, 20)]
        theirs = await two.view.send(script(60, 50))
        await wait_until(lambda: "user-2" in one.active_turns)
        await one.wait_for_turn()
        assert all(turn.status is TurnStatus.COMPLETED for turn in mine)
        assert not one.turn(turn_id(theirs)).status.is_terminal
        await one.wait_for_turn(all=True)
        assert one.turn(turn_id(theirs)).status is TurnStatus.COMPLETED


async def test_trn_19_error_detail_or_a_generic_one(build: Build) -> None:
    stage = await build(workers=0)
    await stage.add_worker(CREW)
    session = stage.session("crew")
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        reported = await one.view.send("coded")
        untold = await one.view.send("raise")
        await each([two.turn(turn_id(turn)).ended for turn in (reported, untold)])
        error = two.turn(turn_id(reported)).error
        assert error is not None
        assert (error.code, error.message) == (50042, "the model is overloaded, try tomorrow")
        generic = two.turn(turn_id(untold)).error
        assert generic is not None and "hunter2" not in generic.message and "Traceback" not in generic.message
        # TRN-20: raising between stream and end, and returning early, both end the turn; the worker goes on.
        assert (await stage.log(session)).ends(turn_id(untold)) == ["error"]
        early = await one.view.send("return")
        assert (await early.ended).status is TurnStatus.COMPLETED
        # TRN-22: two messages, one turn.
        grouped = await one.view.send("two-pipes")
        await each([grouped.ended, two.turn(turn_id(grouped)).ended])
        answers = [message.message.text for message in grouped.messages]
        assert answers == ["two-pipes", "first I plan", "then I answer"]
        assert {two.turn_of(message.codec_message_id) for message in grouped.messages} == {grouped.turn_id}


async def test_trn_20_a_killed_handler_does_not_leave_a_turn_open(build: Build) -> None:
    stage = await build(env=SHORT_LEASE)
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(100, 100, crash_at=10))
        await token_seen(turn, 5)
        await stage.workers[0].wait()
        await stage.add_worker()
        async with within(TAKEN_OVER_S):
            await turn.ended
        assert_exact(turn, 100)
        assert (await stage.log(session)).ends(turn_id(turn)) == ["complete"]


async def test_con_3_the_snapshot_of_turns_matches_the_log(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        turns = [await client.view.send(script(30, 60)) for _ in range(4)]
        await token_seen(turns[0], 5)
        await turns[1].cancel()
        running: dict[str, RunInfo] = {info.run_id: info for info in other.turns()}
        assert set(running) == {turn.turn_id for turn in turns}
        assert {info.client_id for info in running.values()} == {"user-1"}
        await client.wait_for_turn(all=True)
        await wait_until(lambda: all(info.status.is_terminal for info in other.turns()))
        room = stage.room(session)
        for info in other.turns():
            record = await room.record(info.run_id)
            assert record.status in ENDED
            assert (info.status.value, info.agent_client_id) == (record.status, record.agent)


async def test_waiting_turns_are_given_up_when_the_client_is_refused(stage: Stage) -> None:
    with pytest.raises(TransportError) as refusal:
        await stage.connect(stage.session(), key="test.key:wrong")
    assert refusal.value.info.code == 40101
    async with stage.connect(stage.session(), None, key="test.reader:reader") as reader:
        with pytest.raises(TransportError) as refusal:
            await reader.view.send("x")
        assert refusal.value.info.code == 40160
        assert reader.view.messages == []
