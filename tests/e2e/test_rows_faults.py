"""Rows REC-6, REC-8, CAN-21, ERR-2, ERR-3: a connection that fails at the wrong moment, and stops that are no cancels."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from selfhost_transport import ClientTransport, Turn, TurnStatus
from selfhost_transport.errors import TransportError
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.turns import headers as h
from tests.e2e.conftest import Build
from tests.e2e.proxy import Network
from tests.e2e.stage import (
    CONFIG,
    CREW,
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
from tests.processes import Proc, wait_until
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

# How a turn ends that is stopped for each of these reasons; the others are handed over.
STOPS = {
    "cancelled": TurnStatus.CANCELLED,
    "deadline": TurnStatus.FAILED,
    "worker_shutdown": TurnStatus.COMPLETED,
    "lease_lost": TurnStatus.COMPLETED,
}
# A worker that a busy machine keeps waiting for a second or two keeps its turns.
SHORT_LEASE = {f"{ENV_PREFIX}LEASE_MS": "3000"}


async def worker_behind(stage: Stage, network: Network, *target: str, lease_ms: int) -> Proc:
    """A worker whose way to Redis can be cut."""
    file = stage.stack.folder / "worker.toml"
    file.write_text(stage.config)
    port = network.url.rpartition(":")[2]
    redis = f"redis://127.0.0.1:{port}/0"
    env = {f"{ENV_PREFIX}LEASE_MS": str(lease_ms)}
    return await stage.stack.started("worker", *target, "--redis", redis, "--config", str(file), env=env)


def redis_port(stage: Stage) -> int:
    return int(stage.stack.redis_url.rpartition(":")[2].partition("/")[0])


async def test_rec_6_a_blip_of_the_agents_connection_aborts_nothing(build: Build) -> None:
    stage = await build(workers=0)
    session, seconds = stage.session(), scaled(30, 3)
    async with Network(redis_port(stage)) as network, stage.connect(session) as client:
        await worker_behind(stage, network, lease_ms=2_000 * seconds + 4_000)
        tokens = (seconds + 2) * 50
        turns = [await client.view.send(script(tokens, 50)) for _ in range(3)]
        readers = [asyncio.create_task(streamed(turn)) for turn in turns]
        await each([token_seen(turn, 10) for turn in turns])
        network.cut()
        await asyncio.sleep(seconds)
        assert not any(turn.status.is_terminal for turn in turns)
        network.mend()
        assert await asyncio.gather(*readers) == [numbered(tokens)] * 3
        for turn in turns:
            assert (await turn.ended).status is TurnStatus.COMPLETED
            assert attempts(turn) == 1
        log = await stage.log(session)
        assert log.created(h.AI_CANCEL) == []
        assert [log.ends(turn_id(turn)) for turn in turns] == [["complete"]] * 3


async def test_rec_8_restart_replaces_and_fail_ends_what_a_lost_worker_had_written(build: Build) -> None:
    fragile = f'{CONFIG}\n[[namespaces]]\nid = "fragile"\nagent = "assistant"\non_crash = "fail"\n'
    stage = await build(gateways=1, workers=3, config=fragile, env=SHORT_LEASE)
    restarted, failed = stage.session(), stage.session("fragile")
    async with stage.connect(restarted) as one, stage.connect(failed) as two:
        again = await one.view.send(script(40, 100, crash_at=20))
        gone = await two.view.send(script(40, 100, crash_at=20))
        await each([again.ended, gone.ended])
        assert (again.status, attempts(again)) == (TurnStatus.COMPLETED, 2)
        assert (gone.status, attempts(gone)) == (TurnStatus.FAILED, 1)
        assert again.text == numbered(40) and gone.error is not None
        assert [m.message.text for m in one.view.messages][1:] == [numbered(40)]
        # What was written is kept: replaced in the one, and all there is in the other.
        assert 0 < tokens_of(gone.text) <= 20
        texts = [o.text for o in await stage.room(restarted).outputs(turn_id(again)) if o.kind == "text"]
        assert len(texts) == 2 and texts[1] == numbered(40) and 0 < tokens_of(texts[0]) <= 20


async def test_err_3_an_end_that_cannot_be_written_strands_nothing(build: Build, tmp_path: Path) -> None:
    stage = await build(workers=0)
    session, may_end = stage.session("crew"), tmp_path / "end"
    async with Network(redis_port(stage)) as network, stage.connect(session) as client:
        await worker_behind(stage, network, CREW, lease_ms=3_000)
        turn = await client.view.send(f"until-file {may_end}")
        await token_seen(turn)
        network.cut()
        # Its agent is done, and its end cannot be written.
        may_end.touch()
        stage.env = SHORT_LEASE
        await stage.add_worker(CREW)
        assert (await turn.ended).status is TurnStatus.COMPLETED
        assert attempts(turn) == 2
        network.mend()
        # The late end of the first attempt is refused.
        after = await client.view.send(script(3, 0))
        await after.ended
        assert_exact(after, 3)
        assert (await stage.log(session)).ends(turn_id(turn)) == ["complete"]
        assert turn.text == "waited"


async def test_err_2_a_send_whose_answer_is_lost_is_one_turn_and_no_error(stage: Stage) -> None:
    session, chance = stage.session(), random.Random(3)
    async with Network(stage.gateways[0].port) as network:
        client = await ClientTransport.connect(network.url, key=KEY, client_id="user-1", channel=session)
        errors: list[TransportError] = []
        client.on("error", errors.append)
        turns = []
        for _ in range(scaled(100, 15)):
            await wait_until(lambda: client.connected, PATIENCE_S)
            turns.append(client.view.start(script(2, 0)))
            # Before it left, on its way, or after it was accepted and before the client heard of it.
            await asyncio.sleep(chance.uniform(0, 0.012))
            network.cut()
            network.mend()
        for turn in turns:
            assert (await turn.accepted).status in ("pending", "active", "completed")
        running = await client.view.send(script(100, 100))
        await token_seen(running)
        steering = asyncio.create_task(running.steer("script: tokens=3"))
        await asyncio.sleep(0.002)
        network.cut()
        network.mend()
        await steering
        await client.wait_for_turn()
        assert errors == []
        await client.close()
    log = await stage.log(session)
    inputs = [m for _, m in log.created(h.AI_INPUT)]
    assert len(inputs) == len(turns) + 2
    assert [log.ends(turn_id(turn)) for turn in turns] == [["complete"]] * len(turns)


async def test_can_21_every_stop_takes_the_same_path_with_its_own_cause(build: Build, tmp_path: Path) -> None:
    limited = f'{CONFIG}\n[[namespaces]]\nid = "limited"\nagent = "agent-1"\ndeadline = "1s"\n'
    env = {**SHORT_LEASE, f"{ENV_PREFIX}GRACE_MS": "100"}
    stage = await build(gateways=1, workers=0, config=limited, env=env)
    worker = await stage.add_worker(CREW)
    for cause, status in STOPS.items():
        session, reported = stage.session("limited" if cause == "deadline" else "crew"), tmp_path / cause
        async with stage.connect(session) as client:
            turn = await client.view.send(f"causes {reported}")
            await token_seen(turn, 3)
            if cause == "cancelled":
                await client.cancel()
            elif cause == "worker_shutdown":
                following = await stage.add_worker(CREW)
                worker.terminate()
                worker = following
            elif cause == "lease_lost":
                worker.pause()
                await stage.add_worker(CREW)
                await taken_over(turn)
                worker.proceed()
            assert (await turn.ended).status is status
            assert await written(reported) == cause
            assert status is not TurnStatus.COMPLETED or turn.text == "again"
        # Nothing is left open, and nothing follows the end.
        outputs = [o for o in await stage.room(session).outputs(turn_id(turn)) if o.kind == "text"]
        assert all(output.status in ("complete", "cancelled") for output in outputs)
        log = await stage.log(session)
        (end,) = [position for position, m in log.of_turn(turn_id(turn)) if m.name == h.AI_RUN_END]
        assert all(position < end for position in log.content(turn_id(turn)))


def attempts(turn: Turn) -> int:
    """How many attempts at a turn's first step its reader knows of."""
    return turn.info.steps[0].attempt_count if turn.info is not None and turn.info.steps else 0


async def taken_over(turn: Turn) -> None:
    """Wait for the second attempt."""
    await wait_until(lambda: attempts(turn) == 2, PATIENCE_S, f"another attempt at {turn}")


async def written(file: Path) -> str:
    """What a worker wrote into a file, once it has."""
    return await wait_until(lambda: file.read_text() if file.exists() else "", PATIENCE_S, f"{file}")
