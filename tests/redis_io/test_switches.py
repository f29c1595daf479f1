"""A planned fail-over under Sentinel: both servers are well, and nothing but the Sentinels says that the primary is another."""

from __future__ import annotations

import asyncio
import tempfile
import time
from itertools import count
from pathlib import Path

import pytest
import redis

from selfhost_transport.errors import StoreUnavailable
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.subscriber import Subscriber
from tests.processes import wait_until
from tests.promptness import Stopwatch, assert_quick, prompt
from tests.redis_io.sentinels import watched

LOST_WITHIN_S = 1.0


@pytest.mark.parametrize("asks_for_replicas", [False, True])
@prompt
async def test_a_planned_fail_over_is_followed_at_once(tmp_path: Path, asks_for_replicas: bool) -> None:
    """Sentinel makes the old primary a replica ten seconds later. With deploy/redis/replicated.conf it refuses before."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    with watched(folder) as deployment:
        await wait_until(deployment.ready, 30, "Sentinels that know each other")
        for server in deployment.servers if asks_for_replicas else ():
            with redis.Redis.from_url(server.url) as admin:
                admin.config_set("min-replicas-to-write", 1)
        connection = RedisConnection(deployment.url)
        heard: list[bytes] = []
        subscriber = Subscriber(deployment.url)
        await subscriber.subscribe("news", heard.append)
        acknowledged: dict[int, float] = {}
        writing = asyncio.create_task(write(connection, acknowledged))
        await wait_until(lambda: len(acknowledged) > 50)
        was = deployment.primary()
        deployment.hand_over()
        await wait_until(lambda: deployment.primary() not in (0, was), 30, "another primary")
        watch = Stopwatch()
        with redis.Redis(port=deployment.primary()) as primary:
            if asks_for_replicas:
                # Its replica is yet to come.
                primary.config_set("min-replicas-to-write", 0)
            before = primary.llen("list")
            await wait_until(lambda: primary.llen("list") > before, what="writes at the new primary")
            await wait_until(
                lambda: primary.publish("news", "here") and heard, what="notifications of the new primary"
            )
            writing.cancel()
            present = {int(item) for item in primary.lrange("list", 0, -1)}
        took = watch.seconds
        lost = [at for number, at in acknowledged.items() if number not in present]
        await asyncio.gather(writing, return_exceptions=True)
        await connection.close()
        await subscriber.close()
    if asks_for_replicas:
        assert_quick(max(lost, default=0.0) - min(lost, default=0.0), LOST_WITHIN_S)
    assert_quick(took, 5)


async def write(connection: RedisConnection, acknowledged: dict[int, float]) -> None:
    for number in count():
        try:
            await connection.command("RPUSH", "list", number)
        except StoreUnavailable:
            continue
        acknowledged[number] = time.monotonic()
        await asyncio.sleep(0.005)
