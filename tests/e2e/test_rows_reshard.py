"""A deployment on a Redis Cluster whose slots move to other servers while turns stream."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.crc import key_slot

from selfhost_transport import TurnStatus
from selfhost_transport.store.deployment import BUCKETS_OF_CLUSTER
from selfhost_transport.store.keys import bucket_of
from tests.e2e.conftest import Build
from tests.e2e.stage import assert_exact, script, token_seen, turn_id
from tests.processes import wait_until
from tests.redis_io.clusters import Clustered, clustered

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSIONS = 4


async def test_slots_move_under_load(build: Build, tmp_path: Path) -> None:
    """No error at a client, nothing lost or repeated, and a cancel is final whatever moves beside it."""
    # No server is to take over for one that a busy machine holds up.
    with clustered(tmp_path, timeout_ms=15_000) as cluster:
        await wait_until(cluster.replicate, 30, "a replica that knows its primary")
        await wait_until(cluster.ready, 30, "servers that know each other")
        stage = await build(cluster.url, gateways=2)
        sessions = [stage.session() for _ in range(SESSIONS)]
        streaming = asyncio.Barrier(SESSIONS + 1)

        async def talk(session: str) -> None:
            async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
                first = await one.view.send(script(120, 60))
                await token_seen(two.turn(turn_id(first)))
                await streaming.wait()
                await first.ended
                assert first.status is TurnStatus.COMPLETED
                assert_exact(first, 120)
                await two.turn(turn_id(first)).ended
                assert_exact(two.turn(turn_id(first)), 120)
                second = await two.view.send(script(1000, 60))
                await token_seen(second)
                await one.cancel(all=True)
                await second.ended
                assert second.status is TurnStatus.CANCELLED

        talks = [asyncio.create_task(talk(session)) for session in sessions]
        await asyncio.wait_for(streaming.wait(), 30)
        moving = asyncio.create_task(_keep_moving(cluster, sessions))
        await asyncio.wait_for(asyncio.gather(*talks), 60)
        assert moving.cancel(), "the slots moved until the end"
        await asyncio.gather(moving, return_exceptions=True)


async def _keep_moving(cluster: Clustered, sessions: list[str]) -> None:
    """Every session's slot to the next server, in turn, without end."""
    slots = [key_slot(f"{{b{bucket_of(session, BUCKETS_OF_CLUSTER)}}}".encode()) for session in sessions]
    while True:
        for slot in slots:
            ports = cluster.ports[:3]
            owner = ports.index(await asyncio.to_thread(cluster.owner_of, slot))
            await asyncio.to_thread(cluster.move, slot, ports[(owner + 1) % 3])
