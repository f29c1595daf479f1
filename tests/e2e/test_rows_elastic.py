"""A Cluster grows and shrinks with `redis-cli --cluster` while turns stream: add-node, rebalance, reshard, del-node."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from selfhost_transport import ClientTransport, TurnStatus
from tests.e2e.conftest import Build
from tests.e2e.stage import Stage, assert_exact, script, token_seen, turn_id
from tests.processes import wait_until
from tests.redis_io.clusters import clustered
from tests.redis_io.elastic import Elastic

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSIONS = 6
# No server is to take over for one that a busy machine holds up.
TIMEOUT_MS = 15_000


@pytest.mark.timeout(300)
async def test_servers_come_and_go_under_load(build: Build, tmp_path: Path) -> None:
    """No error at a client, no token lost or repeated, each turn ended once, and a cancel final."""
    with clustered(tmp_path, timeout_ms=TIMEOUT_MS) as cluster:
        await wait_until(cluster.replicate, 30, "a replica that knows its primary")
        await wait_until(cluster.ready, 30, "servers that know each other")
        stage = await build(cluster.url, gateways=2)
        elastic = Elastic(cluster, tmp_path, TIMEOUT_MS)
        over, turns = asyncio.Event(), Counter[str]()
        talks = [asyncio.create_task(_talk(stage, stage.session(), over, turns)) for _ in range(SESSIONS)]
        change = asyncio.create_task(asyncio.to_thread(_grow_and_shrink, elastic))
        await asyncio.wait([change, *talks], return_when=asyncio.FIRST_COMPLETED)
        over.set()
        await asyncio.gather(change, *talks)
        assert turns["whole"] >= SESSIONS and turns["cancelled"] >= SESSIONS
        # The one that left has nothing any more, and no process needs it.
        assert len(elastic.primaries()) == 3
        async with stage.connect(stage.session()) as client:
            after = await client.view.send(script(10, 0))
            await after.ended
            assert_exact(after, 10)


def _grow_and_shrink(elastic: Elastic) -> None:
    first, second = elastic.primaries()[:2]
    fourth = elastic.add()
    elastic.rebalance()
    elastic.reshard(first, second, 500)
    elastic.remove(fourth)


async def _talk(stage: Stage, session: str, over: asyncio.Event, turns: Counter[str]) -> None:
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        while not over.is_set():
            await _whole(one, two)
            turns["whole"] += 1
            await _cancelled(stage, session, one, two)
            turns["cancelled"] += 1


async def _whole(one: ClientTransport, two: ClientTransport) -> None:
    turn = await one.view.send(script(60, 60))
    await turn.ended
    assert turn.status is TurnStatus.COMPLETED, turn.error
    assert_exact(turn, 60)
    seen = two.turn(turn_id(turn))
    await seen.ended
    assert_exact(seen, 60)


async def _cancelled(stage: Stage, session: str, one: ClientTransport, two: ClientTransport) -> None:
    turn = await two.view.send(script(2000, 60))
    await token_seen(turn, 10)
    result = await one.cancel(turn_id=turn_id(turn))
    assert result.matched == (turn_id(turn),)
    await turn.ended
    assert turn.status is TurnStatus.CANCELLED
    log = await stage.log(session)
    assert log.ends(turn_id(turn)) == ["cancelled"]
    [end] = log.terminals(turn_id(turn))
    assert max(log.content(turn_id(turn))) < end
