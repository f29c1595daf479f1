"""A deployment on a Redis Cluster, one primary of which is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from selfhost_transport import TurnStatus
from tests.e2e.conftest import Build
from tests.e2e.stage import assert_exact, script, token_seen, turn_id
from tests.processes import wait_until
from tests.redis_io.clusters import clustered

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSIONS = 12


async def test_a_deployment_on_a_cluster(build: Build, tmp_path: Path) -> None:
    with clustered(tmp_path) as cluster:
        await wait_until(cluster.replicate, 30, "a replica that knows its primary")
        await wait_until(cluster.ready, 30, "servers that know each other")
        stage = await build(cluster.url, gateways=2)
        # Enough sessions for every server to have some; the kill comes when all of them stream.
        sessions = [stage.session() for _ in range(SESSIONS)]
        streaming = asyncio.Barrier(SESSIONS + 1)

        async def talk(session: str) -> None:
            async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
                first = await one.view.send(script(1000, 50))
                await token_seen(two.turn(turn_id(first)))
                second = await one.interrupt(script(300, 60))
                await first.ended
                assert first.status is TurnStatus.CANCELLED
                await token_seen(second)
                await streaming.wait()
                await second.ended
                if second.status is TurnStatus.COMPLETED:
                    assert_exact(second, 300)
                    await two.turn(turn_id(second)).ended
                    assert_exact(two.turn(turn_id(second)), 300)
                else:
                    assert second.status is TurnStatus.FAILED and second.error is not None
                after = await two.view.send(script(10, 0))
                await after.ended
                assert_exact(after, 10)

        talks = [asyncio.create_task(talk(session)) for session in sessions]
        await asyncio.wait_for(streaming.wait(), 30)
        await cluster.kill_first()
        await asyncio.wait_for(asyncio.gather(*talks), 60)
