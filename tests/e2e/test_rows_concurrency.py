"""Rows CON: many turns at once on one session."""

from __future__ import annotations

import asyncio

import pytest

from selfhost_transport import TurnStatus
from selfhost_transport.errors import LeaseLost
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.turn_operations import CreateMessage
from selfhost_transport.store.turn_request import unpack_context
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.lifecycle import run_start
from tests.e2e.conftest import Build
from tests.e2e.crew import AGENTS
from tests.e2e.stage import (
    CREW,
    Stage,
    assert_exact,
    each,
    scaled,
    script,
    streamed,
    token_seen,
    turn_id,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("turns", [2, 10, 100])
async def test_con_1_and_2_parallel_turns_reconstruct_exactly(stage: Stage, turns: int) -> None:
    session, tokens = stage.session(), scaled(300, 100)
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        running = await asyncio.gather(*(client.view.send(script(tokens, 50)) for _ in range(turns)))
        texts = await asyncio.gather(*(streamed(other.turn(turn_id(turn))) for turn in running))
        await client.wait_for_turn()
        for turn, text in zip(running, texts, strict=True):
            assert_exact(turn, tokens)
            assert text == turn.text
    log = await stage.log(session)
    spans = [log.content(turn_id(turn)) for turn in running]
    assert max(span[0] for span in spans) < min(span[-1] for span in spans), "not all ran at once"
    assert [log.ends(turn_id(turn)) for turn in running] == [["complete"]] * turns


async def test_con_4_work_after_the_end_of_another(stage: Stage) -> None:
    async with stage.connect(stage.session()) as client:
        first = await client.view.send(script(20, 100))
        assert (await first.ended) is first
        second = await client.view.send(script(5, 0))
        assert (await second.ended).status is TurnStatus.COMPLETED
        assert first.text != second.text


async def test_con_5_and_11_two_users_are_independent(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        mine, theirs = await asyncio.gather(one.view.send(script(40, 50)), two.view.send(script(40, 50)))
        await token_seen(mine)
        await one.cancel(mine.turn_id)
        await theirs.ended
        assert_exact(theirs, 40)
        assert (await mine.ended).status is TurnStatus.CANCELLED
        # CON-11: both were sent below the same message, and both clients have the same tree.
        parents = [[node.parent for node in client.tree.nodes() if node.run is None] for client in (one, two)]
        assert parents == [[None, None]] * 2
        both = await asyncio.gather(one.view.send(script(2, 0)), two.view.send(script(3, 0)))
        await each([client.wait_for_turn(all=True) for client in (one, two)])
        shapes = [
            {node.key: node.parent for node in client.tree.nodes() if node.run is None}
            for client in (one, two)
        ]
        assert shapes[0] == shapes[1]
        assert len({shapes[0][turn.input_codec_message_id or ""] for turn in both}) == 1
        shown = [[m.codec_message_id for m in client.view.messages] for client in (one, two)]
        assert shown[0] == shown[1] and len(shown[0]) == 8


async def test_con_6_several_agents_stream_without_an_orchestrator(build: Build) -> None:
    stage = await build(workers=0)
    await each([stage.add_worker(CREW, "--concurrency", "1") for _ in AGENTS])
    session = stage.session("crew")
    room = stage.room(session)
    async with stage.connect(session) as client:
        ids = {agent: await room.send(script(60, 60), agent=agent) for agent in AGENTS}
        turns = {agent: client.turn(ids[agent]) for agent in AGENTS}
        await each([turn.ended for turn in turns.values()])
        for agent, turn in turns.items():
            assert_exact(turn, 60)
            assert turn.agent == agent
    log = await stage.log(session)
    for agent, one in ids.items():
        said = [message for _, message in log.of_turn(one) if message.name != h.AI_INPUT]
        assert {message.client_id for message in said} == {agent}
    spans = [log.content(one) for one in ids.values()]
    assert max(span[0] for span in spans) < min(span[-1] for span in spans), "not all ran at once"


async def test_con_7_an_id_cannot_be_started_twice(stage: Stage) -> None:
    room = stage.room(stage.session())
    keys = Keyspace(stage.stack.redis_prefix)
    bucket, agent = bucket_of(room.name, keys.buckets), f"no-one-{room.name}"
    turn = await room.send("hello", agent=agent)
    first = await room.turns.take(bucket, agent, "w1", lease_ms=60_000)
    assert first is not None and first.turn_id == turn
    assert await room.turns.take(bucket, agent, "w2", lease_ms=60_000) is None
    assert await room.turns.hand_back(bucket, first)
    second = await room.turns.take(bucket, agent, "w2", lease_ms=60_000)
    assert second is not None and second.turn_id == turn and second.fence != first.fence
    before = (await stage.log(room.name)).entries
    with pytest.raises(LeaseLost):
        await room.turns.write(first, 1, [CreateMessage(run_start(unpack_context(first.context)))])
    assert (await stage.log(room.name)).entries == before
    await room.cancel(turn)


async def test_con_9_from_a_message_to_its_turn(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(5, 0))
        await turn.ended
        assert [client.turn_of(m.codec_message_id) for m in client.view.messages] == [turn.turn_id] * 2
        assert client.turn_of("nothing") is None


async def test_con_10_one_user_may_own_many_turns(stage: Stage) -> None:
    async with stage.connect(stage.session()) as client:
        # Long enough for all ten to run at once, also on a slow machine.
        turns = [await client.view.send(script(160, 40)) for _ in range(10)]
        await each([token_seen(turn) for turn in turns])
        assert client.active_turns["user-1"] == {turn.turn_id for turn in turns}
        assert (await client.cancel(turns[4].turn_id)).matched == (turns[4].turn_id,)
        await client.wait_for_turn()
        for number, turn in enumerate(turns):
            if number == 4:
                assert turn.status is TurnStatus.CANCELLED
            else:
                assert_exact(turn, 160)


async def test_con_12_a_failure_is_isolated(stage: Stage) -> None:
    async with stage.connect(stage.session()) as client:
        texts = (script(30, 60), script(30, 60, fail_at=5, always=1), script(30, 60))
        turns = [await client.view.send(text) for text in texts]
        await client.wait_for_turn()
        statuses = [turn.status for turn in turns]
        assert statuses == [TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.COMPLETED]
        assert_exact(turns[0], 30)
        assert_exact(turns[1], 5)
        assert_exact(turns[2], 30)
