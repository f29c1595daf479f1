"""A cancel reaches the agent at once, and whatever the agent does, nothing of it follows (P2, P6)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

from agent_worker import AbortCause, Turn, Worker
from selfhost_transport.settings import Settings
from tests.processes import wait_until
from tests.promptness import prompt, within
from tests.worker.session import Room
from tests.worker.workers import scripted_worker

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]

# A loaded machine of two cores; the promise itself is 250 ms (CAN-6).
SOON_S = 1.0


class Provider:
    """A provider's response: some tokens, then silence; it notices when its reader hangs up."""

    def __init__(self, tokens: int) -> None:
        self._left = tokens
        self.hung_up = asyncio.Event()
        self.when_silent: Callable[[], None] = lambda: None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if not self._left:
            self.when_silent()
            await asyncio.get_running_loop().create_future()
        self._left -= 1
        return "token "

    async def close(self) -> None:
        """As the clients of the usual providers do it."""
        self.hung_up.set()


async def streaming(room: Room, turn: str) -> None:
    async def has_text() -> bool:
        return bool(await room.text(turn))

    await wait_until(has_text, what=f"the first text of {turn}")


async def test_can_6_the_providers_response_is_closed_while_it_is_silent(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())
    providers: list[Provider] = []
    causes: list[AbortCause | None] = []

    @worker.agent("assistant")
    async def agent(turn: Turn) -> None:
        providers.append(Provider(3))
        try:
            await turn.pipe(providers[-1])
        finally:
            causes.append(turn.abort_cause)

    @prompt
    async def closed() -> None:
        turn = await room.send("go")
        await streaming(room, turn)
        async with within(SOON_S):
            await room.cancel(turn)
            await providers[-1].hung_up.wait()

    await running(worker)
    await closed()
    await wait_until(lambda: len(causes) == len(providers))
    assert set(causes) == {AbortCause.CANCELLED}
    await wait_until(lambda: worker.statistics().outcomes == {"cancelled": len(providers)})


async def test_a_generator_of_the_agents_own_is_unwound(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    # Without gathering: what a window still holds is dropped by the cancel.
    worker = Worker(settings(rollup_window_ms=0))
    unwound = asyncio.Event()

    @worker.agent("assistant")
    async def agent(turn: Turn) -> AsyncIterator[str]:
        try:
            async for token in Provider(3):
                yield token.upper()
        finally:
            unwound.set()

    @prompt
    async def cancelled() -> None:
        unwound.clear()
        turn = await room.send("go")
        await streaming(room, turn)
        async with within(SOON_S):
            await room.cancel(turn)
            await unwound.wait()
        assert set((await room.text(turn)).split()) == {"TOKEN"}

    await running(worker)
    await cancelled()


async def test_int_13_and_int_3_an_agent_that_ignores_the_abort_is_left_behind(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings(concurrency=1))
    is_left, wrote_again = asyncio.Event(), asyncio.Event()

    @worker.agent("assistant")
    async def agent(turn: Turn) -> None:
        if await turn.text() != "be stubborn":
            await turn.pipe(["fine"])
            return
        try:
            await turn.pipe(Provider(2))
        except asyncio.CancelledError:
            await is_left.wait()
            result = await turn.pipe(["I go on regardless"])
            assert result.reason == "cancelled"
            wrote_again.set()

    await running(worker)
    stubborn = await room.send("be stubborn")
    await streaming(room, stubborn)
    cancelled = await room.cancel(stubborn)
    following = await room.send("hello")
    assert (await room.ended(following)).status == "completed"
    assert worker.statistics().unwinding == 1 and not wrote_again.is_set()
    is_left.set()
    async with asyncio.timeout(20):
        await wrote_again.wait()
    assert await room.content_after(stubborn, cancelled.position) == []
    await wait_until(lambda: worker.statistics().unwinding == 0)


async def test_int_1_no_token_after_cancel(room: Room, settings: MakeSettings, running: Run) -> None:
    await running(scripted_worker(settings(rollup_window_ms=20)))
    turns = [await room.send("script: tokens=2000 rate=50") for _ in range(40)]

    async def cancel_some_time(turn: str) -> int:
        await asyncio.sleep(random.uniform(0.05, 1.0))  # the moment is what the test varies
        cancelled = await room.cancel(turn)
        assert cancelled.matched == (turn,)
        return len(await room.content_after(turn, cancelled.position))

    assert sum(await asyncio.gather(*map(cancel_some_time, turns))) == 0
    for turn in turns:
        assert await room.terminals(turn) == ["cancelled"]


async def test_a_lost_push_costs_nothing_but_latency(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = await running(scripted_worker(settings(rollup_window_ms=0)))
    turn = await room.send("script: tokens=2000 rate=50")
    await streaming(room, turn)
    # Pub/sub forgets: the cancel comes while the worker is not subscribed.
    await room.turns.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
    cancelled = await room.cancel(turn)
    await wait_until(lambda: worker.running == 0)
    assert await room.content_after(turn, cancelled.position) == []
    assert await room.terminals(turn) == ["cancelled"]


async def test_int_23_a_cancel_racing_the_end_has_one_winner(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    await running(scripted_worker(settings()))
    winners = {"complete": 0, "cancelled": 0}

    async def race() -> None:
        turn = await room.send("script: tokens=5 rate=100")
        await asyncio.sleep(random.uniform(0.045, 0.065))  # around the last token
        cancelled = await room.cancel(turn)
        assert {*cancelled.matched, *cancelled.already_ended} == {turn}
        await room.ended(turn)
        (reason,) = await room.terminals(turn)
        assert (reason == "cancelled") == (turn in cancelled.matched)
        winners[reason] += 1

    for _ in range(5):
        await asyncio.gather(*(race() for _ in range(20)))
    assert sum(winners.values()) == 100


async def test_cancelling_oneself_is_a_failure_and_not_a_cancel(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def agent(turn: Turn) -> None:
        raise asyncio.CancelledError

    await running(worker)
    turn = await room.send("go")
    await room.ended(turn)
    assert await room.terminals(turn) == ["error"]


async def test_a_timeout_of_the_agents_own_closes_its_message_and_no_more(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker, provider = Worker(settings()), Provider(1)

    @worker.agent("assistant")
    async def agent(turn: Turn) -> None:
        try:
            async with asyncio.timeout(None) as limit:
                provider.when_silent = lambda: limit.reschedule(0)
                await turn.pipe(provider)
        except TimeoutError:
            await turn.pipe(["the first model was too slow"])

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    said = [(output.text, output.status) for output in await room.outputs(turn)]
    assert said == [("token ", "cancelled"), ("the first model was too slow", "complete")]
    assert provider.hung_up.is_set()
