"""What one client, with few rights, can cost the others: nothing they would notice."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import psutil
import pytest
import redis as blocking_redis

from gateway.auth.rate_limits import Limits
from gateway.realtime.command_order import CommandOrder
from selfhost_transport.errors import BadRequest, RateLimited
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import LimitSettings
from tests.gateway.cores import credential
from tests.gateway.raw import ACK, ATTACHED, CONFIG, CONNECTED, DETACHED, RawClient, client
from tests.processes import Proc, Stack
from tests.promptness import assert_quick, prompt

READER = "app.reader:reader"
SYNC, ATTACH, PRESENCE = 16, 10, 14


@dataclass
class Attacked:
    """A gateway of one's own with a Redis that can be stopped."""

    gateway: Proc
    redis: blocking_redis.Redis

    @property
    def resident_mb(self) -> float:
        return float(psutil.Process(self.gateway.pid).memory_info().rss) / 1e6

    def stop_redis(self, ms: int = 2000) -> None:
        self.redis.client_pause(ms)

    async def health_s(self) -> float:
        began = time.monotonic()
        async with httpx.AsyncClient(timeout=30) as http:
            assert (await http.get(f"{self.gateway.url}/healthz")).status_code == 200
        return time.monotonic() - began


@pytest.fixture
async def attacked(stack: Stack) -> AsyncIterator[Attacked]:
    with EmbeddedRedis() as server, blocking_redis.Redis.from_url(server.url) as control:
        stack.redis_url = server.url
        yield Attacked(await stack.gateway(config=CONFIG), control)
        await stack.close()


@asynccontextmanager
async def flooding(socket: RawClient, frame: Callable[[int], dict[str, object]]) -> AsyncIterator[None]:
    """Frames without an end, as fast as they are taken."""

    async def flood() -> None:
        number = 0
        while True:
            await socket.send_raw(json.dumps(frame(number)))
            number += 1
            if number % 100 == 0:
                await asyncio.sleep(0)

    task = asyncio.create_task(flood())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


FLOODS: dict[str, Callable[[int], dict[str, object]]] = {
    "one channel": lambda number: {"action": ATTACH, "channel": "a"},
    "many channels": lambda number: {"action": ATTACH, "channel": f"c{number}"},
    "attach and detach": lambda number: {
        "action": 12 if number % 2 else ATTACH,
        "channel": f"c{number // 2}",
    },
    "sync": lambda number: {"action": SYNC, "channel": "room"},
}


@pytest.mark.parametrize("name", FLOODS)
@prompt
async def test_frames_while_redis_stands_still_are_not_piled_up(attacked: Attacked, name: str) -> None:
    async with client(attacked.gateway.url, key=READER) as socket:
        await socket.action(CONNECTED)
        await socket.attach("room")
        before = attacked.resident_mb
        attacked.stop_redis()
        async with flooding(socket, FLOODS[name]):
            await asyncio.sleep(2.0)  # Redis stands still meanwhile
            healthy = await attacked.health_s()
        grown = attacked.resident_mb - before
    assert grown < 30
    assert_quick(healthy, 2.0)


async def test_made_up_names_leave_next_to_nothing_and_briefly(attacked: Attacked) -> None:
    """A client that may only listen attaches to what does not exist: a little memory, for minutes."""
    async with client(attacked.gateway.url, key=READER) as socket:
        await socket.action(CONNECTED)
        await socket.attach("first")
        before = attacked.redis.info("memory")["used_memory_dataset"]
        answers = [await socket.attach(f"made-up:{number}") for number in range(300)]
    attached = sum(answer["action"] == ATTACHED for answer in answers)
    refused = [answer["error"] for answer in answers if answer["action"] == DETACHED]
    # More than the limit within a second, were it not for the machine's own pace.
    assert attached >= 100
    assert {error["code"] for error in refused} <= {42910}
    names = list(attacked.redis.keys("*:s:made-up:*"))
    assert len(names) == attached
    assert all(0 < attacked.redis.ttl(name) <= 600 for name in names)
    assert (attacked.redis.info("memory")["used_memory_dataset"] - before) / attached < 2048


async def test_sessions_that_exist_are_attached_as_fast_as_one_likes() -> None:
    limits, existing = Limits(LimitSettings(new_sessions_per_s=2), lambda: 1.0), True

    async def exists() -> bool:
        return existing

    for _ in range(100):
        await limits.admit_session(credential(), exists)
    existing = False
    with pytest.raises(RateLimited) as refused:
        await limits.admit_session(credential(), exists)
    assert (refused.value.info.retry_after_ms or 0) > 0
    # Another's are counted apart.
    await limits.admit_session(credential("bob"), exists)


@prompt
async def test_members_are_sent_once_more_however_often_they_are_asked_for(attacked: Attacked) -> None:
    """300 requests for the members of a backpressured session: others are answered in between."""
    async with client(attacked.gateway.url, clientId="*") as crowd, client(attacked.gateway.url) as asking:
        await crowd.action(CONNECTED)
        await asking.action(CONNECTED)
        await crowd.attach("room", flags=1 << 16)
        for start in range(0, 2000, 100):
            members = [{"action": 2, "clientId": f"m{start + index}"} for index in range(100)]
            await crowd.send(
                {"action": PRESENCE, "channel": "room", "msgSerial": start // 100, "presence": members}
            )
            assert (await crowd.answer())["action"] == ACK
        await asking.attach("room")
        await asking.next(_is_last_page)
        for _ in range(300):
            await asking.send({"action": SYNC, "channel": "room"})
        waited = [await attacked.health_s() for _ in range(5)]
        sequences = 0
        # The last one was asked for last: it is answered by a whole sequence that began after it.
        async with asyncio.timeout(60):
            while sequences < 2:
                await asking.next(_is_last_page)
                sequences += 1
        await asking.send({"action": 0, "id": "end"})
        await asking.next(lambda frame: frame["action"] == 0 and frame.get("id") == "end")
        more = [frame for frame in asking._kept if _is_last_page(frame)]
    assert not more
    assert_quick(min(waited), 0.5)


def _is_last_page(frame: dict[str, object]) -> bool:
    return frame["action"] == SYNC and str(frame.get("channelSerial", "")).endswith(":")


async def test_refusals_behind_a_pending_answer_cost_the_same_however_many_they_are() -> None:
    answers = CommandOrder()
    slow = answers.register(0)

    def refuse(count: int) -> float:
        began = time.process_time()
        for number in range(count):
            assert answers.resolve(answers.register(number), BadRequest("no").info) == ([], None)
        return time.process_time() - began

    gc.disable()  # a collection would be counted
    try:
        few = min(refuse(1000) for _ in range(3))
        refuse(40_000)
        late = min(refuse(1000) for _ in range(3))
    finally:
        gc.enable()
    assert late < 10 * few + 0.01
    frames, _ = answers.resolve(slow, BadRequest("no").info)
    assert len(frames) == 46_001
    assert len(answers) == 0


@prompt
async def test_refusals_behind_a_cancel_that_waits_are_bounded(attacked: Attacked) -> None:
    """79,000 invalid publishes behind an operation that waits for Redis: the socket is not read."""
    async with client(attacked.gateway.url) as socket:
        await socket.action(CONNECTED)
        before = attacked.resident_mb
        attacked.stop_redis()
        await socket.submit("room", {"name": "x", "data": "y"})
        invalid = {
            "action": 15,
            "channel": "room",
            "messages": [{"name": "x", "data": {"not": "a string"}, "encoding": 5}],
        }
        async with flooding(socket, lambda number: {**invalid, "msgSerial": number + 1}):
            await asyncio.sleep(1.5)  # Redis stands still meanwhile
            healthy = await attacked.health_s()
        assert attacked.resident_mb - before < 30
    assert_quick(healthy, 2.0)
