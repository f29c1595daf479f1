"""Acceptance rows about size, against real processes; every viewer checks every token."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Sequence

import httpx
import psutil

from selfhost_transport.loadtest.histogram import Histogram
from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.session import CANCELLABLE
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import Created
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position
from tests.loadtest.crowd import KEY, Crowd, config, crowd
from tests.processes import Proc, Stack, wait_until
from tests.promptness import assert_quick, prompt


async def started(stack: Stack, **options: int) -> tuple[str, Proc]:
    """The address of a gateway, and the worker beside it."""
    text = config(**options)
    gateway = await stack.gateway(config=text)
    return gateway.url, await stack.worker(config=text)


def resident_mb(process: Proc) -> float:
    return float(psutil.Process(process.pid).memory_info().rss) / 1e6


async def test_con_2_a_hundred_turns_on_one_session_through_one_worker(stack: Stack) -> None:
    url, _ = await started(stack)
    async with crowd(url, "con2", viewers=2) as found:
        sends = (found.send(time.time(), tokens=100, rate=50.0) for _ in range(100))
        await found.wait_all(list(await asyncio.gather(*sends)))
        assert found.broken() == []
        assert found.recorder.outcomes == {"complete": 100}


async def test_con_8_a_thousand_open_turns_on_one_session(
    stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    url, worker = await started(stack)
    before = resident_mb(worker)
    async with crowd(url, "con8") as found:
        turns = list(
            await asyncio.gather(
                *(
                    found.send(time.time(), tokens=50, rate=50.0, script="hang_at=3", outcomes=CANCELLABLE)
                    for _ in range(1000)
                )
            )
        )
        # All are open at once: each has streamed three tokens and fallen silent.
        await wait_until(lambda: found.recorder.tokens == 3000, 150, "every turn is streaming")
        assert not found.recorder.outcomes
        record_property("worker MB per 1,000 turns", resident_mb(worker) - before)
        await asyncio.gather(*(found.session.cancel(turn) for turn in turns))
        await found.wait_all(turns)
        record_property("cancel acknowledged, p99 ms", found.summary(Metric.CANCEL_ACK).p99)
        assert found.broken() == []
        assert found.recorder.outcomes == {"cancelled": 1000}


@prompt
async def test_con_13_one_fast_turn_does_not_slow_the_others(stack: Stack) -> None:
    url, _ = await started(stack)

    async def slow_ones(found: Crowd) -> float:
        sends = (found.send(time.time(), tokens=60, rate=20.0) for _ in range(20))
        await found.wait_all(list(await asyncio.gather(*sends)))
        return found.summary(Metric.GAP).p99

    async with crowd(url, "quiet") as alone:
        baseline = await slow_ones(alone)
    async with crowd(url, "loud") as loud, crowd(url, "beside") as beside:
        fast = await loud.send(time.time(), tokens=100_000, rate=2000.0, outcomes=CANCELLABLE)
        gap = await slow_ones(beside)
        assert not fast.outcome, "the fast turn was meant to last longer"
        await loud.session.cancel(fast)
        await loud.session.wait(fast)
        assert loud.broken() == beside.broken() == alone.broken() == []
    assert_quick(gap, 2 * baseline)


async def test_str_12_con_14_a_reader_that_stops_gets_everything_and_harms_no_one(stack: Stack) -> None:
    # Without a window every token is a frame, so that the reader's buffers are full within seconds.
    url, _ = await started(stack, window_ms=0)
    async with crowd(url, "slow", viewers=2) as found:
        reader = found.session.viewers[-1].client
        turns = [await found.send(time.time(), tokens=2500, rate=500.0) for _ in range(4)]
        await wait_until(lambda: found.recorder.tokens > 500)
        reader.stop_reading()
        await wait_until(lambda: all(turn.outcome for turn in turns), 150)
        # The other viewer, who reads, had all of it while this one read nothing.
        assert all(turn.waiting == 1 for turn in turns)
        reader.go_on()
        await found.wait_all(turns)
        assert found.broken() == []
        assert found.recorder.counters["discontinuities"] == 0


async def test_str_15_two_hundred_thousand_tokens_in_one_turn(stack: Stack) -> None:
    url, worker = await started(stack)
    async with crowd(url, "long") as found:
        before = resident_mb(worker)
        turn = await found.send(time.time(), tokens=200_000, rate=25_000.0)
        await found.session.wait(turn)
        assert found.broken() == []
        assert found.recorder.outcomes == {"complete": 1}
        assert found.recorder.tokens == 200_000
        # The text itself is 1.3 MB.
        assert resident_mb(worker) - before < 30


async def test_ses_7_dev_11_a_thousand_viewers_of_one_session(
    stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    url, _ = await started(stack)
    async with crowd(url, "watched", viewers=1000) as found:
        turn = await found.send(time.time(), tokens=40, rate=10.0)
        await found.session.wait(turn)
        record_property("published to received, p99 ms", found.summary(Metric.DELIVERY).p99)
        assert found.broken() == []
        assert turn.waiting == 0
        assert found.recorder.tokens == 40 * 1000


@prompt
async def test_int_26_from_the_cancel_call_to_the_terminal(stack: Stack) -> None:
    url, _ = await started(stack)
    async with crowd(url, "barge") as found:
        sends = (found.send(time.time(), tokens=2000, rate=50.0, outcomes=CANCELLABLE) for _ in range(100))
        turns = list(await asyncio.gather(*sends))
        for turn in turns:
            await found.session.cancel(turn)
        await found.wait_all(turns)
        assert found.broken() == []
        assert found.recorder.outcomes == {"cancelled": 100}
        assert_quick(found.summary(Metric.CANCEL_CONTENT).p99 / 1000, 0.1)
        assert_quick(found.summary(Metric.CANCEL_TERMINAL).p99 / 1000, 0.1)


async def test_con_15_a_worker_runs_no_more_than_it_may(
    stack: Stack, redis_url: str, redis_prefix: str
) -> None:
    url, _ = await started(stack, concurrency=5)
    async with crowd(url, "capped") as found:
        sends = (found.send(time.time(), tokens=15, rate=50.0) for _ in range(20))
        await found.wait_all(list(await asyncio.gather(*sends)))
        assert found.broken() == []
        names = await names_in_log(redis_url, redis_prefix, found.session.name)
    running = most = 0
    for name in names:
        running += (name == h.AI_RUN_START) - (name == h.AI_RUN_END)
        most = max(most, running)
    assert most == 5


async def names_in_log(redis_url: str, prefix: str, session: str) -> Sequence[str | None]:
    """The names of all messages created in a session, in order."""
    redis = RedisConnection(redis_url)
    try:
        store, names, after = SessionStore(redis, Keyspace(prefix)), list[str | None](), Position.ZERO
        while entries := await store.read_after(session, after):
            for entry in entries:
                if isinstance(entry, Created):
                    names += [message.name for message in entry.messages]
            after = entries[-1].position
        return names
    finally:
        await redis.close()


async def test_his_11_ten_thousand_messages_page_in_bounded_time(
    stack: Stack, redis_url: str, redis_prefix: str
) -> None:
    gateway = await stack.gateway(config=config())
    redis = RedisConnection(redis_url)
    try:
        store = SessionStore(redis, Keyspace(redis_prefix))
        await asyncio.gather(
            *(
                store.publish("large", [Message(name="n", data=f"{start + index}") for index in range(20)])
                for start in range(0, 10_000, 20)
            )
        )
    finally:
        await redis.close()
    headers = {"Authorization": f"Basic {base64.b64encode(KEY.encode()).decode()}"}

    @prompt
    async def page_by_page() -> None:
        times, seen = Histogram(), []
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as http:
            url = httpx.URL(f"{gateway.url}/channels/large/messages?limit=100")
            while True:
                began = time.perf_counter()
                page = await http.get(url)
                times.record(time.perf_counter() - began)
                seen += [message["data"] for message in page.json()]
                if "next" not in page.links:
                    break
                url = page.url.join(page.links["next"]["url"])
        assert sorted(map(int, seen)) == list(range(10_000))
        assert times.count >= 100
        # One page in a hundred may meet a busy machine.
        assert_quick(times.percentile(98) / 1000, 0.1)

    await page_by_page()
