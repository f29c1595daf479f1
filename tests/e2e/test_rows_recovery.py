"""Rows REC and DUR: connections, gateways and workers that are lost."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from selfhost_transport import ClientTransport, Turn, TurnStatus
from selfhost_transport.client import Discontinuity
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.store.fields import TurnFields as Field
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.turns.chunks import Start
from tests.e2e.conftest import Build
from tests.e2e.proxy import Network
from tests.e2e.stage import (
    KEY,
    PATIENCE_S,
    Stage,
    assert_exact,
    each,
    scaled,
    script,
    streamed,
    token_seen,
    tokens_of,
    turn_id,
)
from tests.processes import wait_until
from tests.promptness import Stopwatch, prompt, within
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

# A worker that a busy machine keeps waiting for a second or two keeps its turns.
SHORT_LEASE = {f"{ENV_PREFIX}LEASE_MS": "3000"}
TAKEN_OVER_S = 30.0


async def test_rec_1_and_4_short_drops(stage: Stage) -> None:
    session, chance = stage.session(), random.Random(8)
    drops, longest = scaled(200, 24), scaled(20, 1)
    gaps: list[Discontinuity] = []

    async def watch(number: int, turn: str) -> None:
        async with Network(stage.gateways[number % 2].port) as network:
            client = await ClientTransport.connect(
                network.url, key=KEY, client_id=f"user-{number}", channel=session
            )
            client.on("discontinuity", gaps.append)
            # No code here knows that there is a network.
            reading = asyncio.create_task(streamed(client.turn(turn)))
            for _ in range(drops // 8):
                await asyncio.sleep(chance.uniform(0.05, 0.5))
                network.cut()
                await asyncio.sleep(chance.uniform(0.1, longest))
                network.mend()
            assert await reading == numbered(tokens)
            assert client.turn(turn).text == numbered(tokens)
            await client.close()

    tokens = int((drops / 8) * (longest / 2 + 0.6) * 50) + 50
    async with stage.connect(session) as client:
        turn = turn_id(await client.view.send(script(tokens, 50)))
        await each([watch(number, turn) for number in range(8)])
    assert gaps == []


async def test_rec_3_joining_mid_stream(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(200, 100))
        await token_seen(turn, 100)
        async with stage.connect(session, "user-2", gateway=1) as late:
            watched = late.turn(turn_id(turn))
            assert tokens_of(watched.text) >= 100
            assert isinstance(await anext(watched.stream), Start)
            assert await streamed(watched) == numbered(200)


async def test_rec_7_a_dead_worker_is_replaced(build: Build) -> None:
    stage = await build(workers=1, env=SHORT_LEASE)
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(150, 100))
        reading = asyncio.create_task(streamed(turn))
        await token_seen(turn, 100)
        stage.workers.pop().kill()
        await stage.add_worker()
        async with within(TAKEN_OVER_S):
            text = await reading
        assert turn.status is TurnStatus.COMPLETED
        assert_exact(turn, 150)
        assert text == numbered(150)
        assert (await stage.log(session)).ends(turn_id(turn)) == ["complete"]


@prompt
async def test_rec_9_a_lost_gateway(build: Build) -> None:
    stage = await build()
    session = stage.session()
    async with AsyncExitStack() as exits:
        clients = [
            await exits.enter_async_context(stage.connect(session, f"user-{n}", gateway=0)) for n in range(5)
        ]
        turn = turn_id(await clients[0].view.send(script(300, 100)))
        await each([token_seen(client.turn(turn), 20) for client in clients])
        watch = Stopwatch()
        stage.gateways[0].kill()
        await wait_until(lambda: not any(client.connected for client in clients))
        await wait_until(lambda: all(client.connected for client in clients), PATIENCE_S)
        counts = [tokens_of(client.turn(turn).text) for client in clients]
        await each([token_seen(client.turn(turn), n + 5) for client, n in zip(clients, counts, strict=True)])
        watch.assert_below(3)
        for client in clients:
            await client.turn(turn).ended
            assert_exact(client.turn(turn), 300)


async def test_rec_10_sends_made_offline_arrive_once(stage: Stage) -> None:
    session = stage.session()
    async with Network(stage.gateways[0].port) as network:
        client = await ClientTransport.connect(network.url, key=KEY, client_id="user-1", channel=session)
        network.cut()
        await wait_until(lambda: not client.connected)
        turns = [client.view.start(script(n, 0)) for n in (3, 4)]
        assert len(client.view.messages) == 2
        await asyncio.sleep(scaled(300, 1))
        network.mend()
        for turn, tokens in zip(turns, (3, 4), strict=True):
            await turn.ended
            assert_exact(turn, tokens)
        assert len(client.turns()) == 2
        await client.close()


@prompt
async def test_rec_12_half_open_sockets_are_noticed(build: Build) -> None:
    stage = await build(gateways=1, env={f"{ENV_PREFIX}MAX_IDLE_MS": "500"})
    session = stage.session()
    async with Network(stage.gateways[0].port) as network:
        client = await ClientTransport.connect(network.url, key=KEY, client_id="user-1", channel=session)
        assert client.connected
        network.is_silent = True
        watch = Stopwatch()
        await wait_until(lambda: not client.connected, PATIENCE_S)
        watch.assert_below(1.5)
        network.cut()
        network.is_silent = False
        network.mend()
        await wait_until(lambda: client.connected)
        turn = await client.view.send(script(5, 0))
        await turn.ended
        assert_exact(turn, 5)
        await client.close()


async def test_dur_8_kills_at_random_moments(build: Build) -> None:
    # Where workers start slowly, turns pile up: none is refused for it, this is about those that were accepted.
    stage = await build(workers=2, env={f"{ENV_PREFIX}LEASE_MS": "1000", f"{ENV_PREFIX}MAX_WAIT_MS": "0"})
    session, chance, kills = stage.session(), random.Random(9), scaled(100, 8)
    async with stage.connect(session) as client:
        turns = []
        for _ in range(kills):
            turns += [client.view.start(script(60, 60)) for _ in range(max(1, 100 // kills))]
            # Between two kills some turns end, and some are lost again.
            await asyncio.sleep(chance.uniform(0, 1.6))
            stage.workers.pop(0).kill()
            await stage.add_worker()
        async with within(100):
            await each([turn.ended for turn in turns])
        log = await stage.log(session)
        for turn in turns:
            (reason,) = log.ends(turn_id(turn))
            if reason == "complete":
                assert_exact(turn, 60)
            else:
                # As many workers died under it as it had attempts that count: not those that waited to run alone.
                assert reason == "error" and turn.info is not None
                assert turn.info.steps[0].attempt_count >= 3
                assert await _attempts_that_counted(stage, session, turn) == 3


async def _attempts_that_counted(stage: Stage, session: str, turn: Turn) -> int:
    key = Keyspace(stage.stack.redis_prefix).of_item("t", turn_id(turn), session)
    attempts, handed_back = await stage.store.command("HMGET", key, Field.ATTEMPTS, Field.HANDED_BACK)
    return int(attempts) - int(handed_back or 0)


async def test_dur_9_a_zombie_cannot_write(build: Build) -> None:
    stage = await build(env=SHORT_LEASE)
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(200, 100))
        await token_seen(turn, 50)
        zombie = stage.workers[0]
        zombie.pause()
        await stage.add_worker()
        await wait_until(
            lambda: turn.info is not None and turn.info.steps[0].attempt_count == 2, TAKEN_OVER_S
        )
        zombie.proceed()
        await turn.ended
        assert_exact(turn, 200)
        log, room = await stage.log(session), stage.room(session)
        assert log.ends(turn_id(turn)) == ["complete"]
        texts = [output for output in await room.outputs(turn_id(turn)) if output.kind == "text"]
        assert len(texts) == 2
        # What the first attempt left is what it had written when it was frozen.
        abandoned = tokens_of(texts[0].text)
        assert 50 <= abandoned < 200


async def test_ses_12_and_rec_11_a_gap_is_announced_and_mended(build: Build) -> None:
    stage = await build(env={f"{ENV_PREFIX}RESUME_WINDOW_S": "1"})
    session = stage.session()
    async with Network(stage.gateways[0].port) as network:
        client = await ClientTransport.connect(network.url, key=KEY, client_id="user-1", channel=session)
        gaps: list[Discontinuity] = []
        client.on("discontinuity", gaps.append)
        before = await client.view.send(script(5, 0))
        await before.ended
        network.cut()
        await wait_until(lambda: not client.connected)
        async with stage.connect(session, "user-2", gateway=1) as other:
            running = await other.view.send(script(250, 50))
            missed = await other.view.send(script(7, 0))
            await missed.ended
            # Longer than the live log reaches back; the end of a turn trims it.
            await asyncio.sleep(2)
            await (await other.view.send(script(1, 0))).ended
            network.mend()
            await wait_until(lambda: gaps, 10)
            assert gaps[0].reason is not None and gaps[0].reason.code == 90003
            assert_exact(client.turn(turn_id(missed)), 7)
            assert len(client.view.messages) == 8
            text = await streamed(client.turn(turn_id(running)))
            assert text == numbered(250)
            assert_exact(client.turn(turn_id(running)), 250)
        after = await client.view.send(script(3, 0))
        await after.ended
        assert_exact(after, 3)
        assert len(gaps) == 1
        await client.close()
