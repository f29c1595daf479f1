"""Row STR-6: Redis cuts, stalls and fails over while an answer streams."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis

from selfhost_transport import TurnStatus
from selfhost_transport.errors import TransportError
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.e2e.conftest import Build
from tests.e2e.stage import assert_exact, scaled, script, token_seen, turn_id
from tests.processes import wait_until
from tests.redis_io.sentinels import watched

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_str_6_nothing_is_lost_in_silence(build: Build, tmp_path: Path) -> None:
    with watched(tmp_path) as deployment:
        await wait_until(deployment.ready, 30, "Sentinels that know each other")
        stage = await build(deployment.url, gateways=2)
        session = stage.session()
        async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
            turn = await one.view.send(script(1000, scaled(100, 250)))
            await token_seen(turn)
            with redis.Redis(port=deployment.primary()) as admin:
                for kind in ("normal", "pubsub"):
                    admin.execute_command("CLIENT", "KILL", "TYPE", kind)
                cut = len(turn.text)
                await wait_until(lambda: len(turn.text) > cut + 50, 10, "tokens after the cut")
                admin.execute_command("CLIENT", "PAUSE", scaled(5000, 1000))
            stalled = len(turn.text)
            await wait_until(lambda: len(turn.text) > stalled + 50, 15, "tokens after the stall")
            await deployment.kill_primary()
            for client in (one, two):
                await client.turn(turn_id(turn)).ended
            shown = [client.turn(turn_id(turn)) for client in (one, two)]
            assert [seen.status for seen in shown] in ([TurnStatus.COMPLETED] * 2, [TurnStatus.FAILED] * 2)
            # Whatever the replica had not received yet is either written again, or the turn says that it failed.
            if turn.status is TurnStatus.COMPLETED:
                assert_exact(turn, 1000)
                assert_exact(two.turn(turn_id(turn)), 1000)
                assert await stage.text_in_history(session, turn_id(turn)) == turn.text
            after = await two.view.send(script(20, 0))
            await after.ended
            assert_exact(after, 20)


async def test_a_redis_that_lost_everything_leaves_no_one_waiting(
    build: Build, own_redis: EmbeddedRedis
) -> None:
    stage = await build(own_redis.url, gateways=1)
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(1000, 100))
        await token_seen(turn)
        with redis.Redis.from_url(own_redis.url) as admin:
            admin.flushall()
            admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        with pytest.raises(TransportError):
            await asyncio.wait_for(turn.ended, 15)
        after = await client.view.send(script(20, 0))
        await after.ended
        assert_exact(after, 20)
        assert [item.message.text for item in client.view.messages if item.message.role == "assistant"] == [
            after.text
        ]
