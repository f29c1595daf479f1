"""User code reaches beyond its turn: it cancels all tasks, forks, or uses another event loop (P12)."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agent_worker import CancelRequest, ToolCall, Turn, Worker
from selfhost_transport.settings import Settings
from tests.processes import wait_until
from tests.worker.session import Room

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


@pytest.fixture
async def worker(settings: MakeSettings) -> AsyncIterator[Worker]:
    """One that runs as a program of its own would run it: in the loop's main task."""
    made = Worker(settings())

    @made.agent("steady")
    async def steady(turn: Turn) -> AsyncIterator[str]:
        for number in range(30):
            yield f"{number} "
            # A child task of the agent's own.
            await asyncio.create_task(asyncio.sleep(0.01))

    running = asyncio.create_task(made.run())
    yield made
    made.stop()
    await asyncio.wait_for(running, 10)
    assert not running.cancelled()


async def test_an_agent_that_cancels_all_tasks_ends_itself_only(room: Room, worker: Worker) -> None:
    mine = {task for task in asyncio.all_tasks() if task.get_name() != "worker-run"}

    @worker.agent("sweeper")
    async def sweeper(turn: Turn) -> None:
        await turn.pipe(["before"])
        # The program's other tasks are not the worker's to protect, except the one that waits for it.
        for task in asyncio.all_tasks() - mine | {task for task in mine if "run" in repr(task.get_coro())}:
            task.cancel()
        await asyncio.sleep(0)

    await worker.ready.wait()
    beside = [await room.send("go", agent="steady") for _ in range(3)]
    for _ in range(3):
        swept = await room.send("go", agent="sweeper")
        record = await room.ended(swept)
        assert (record.status, record.attempts) == ("failed", 1)
    for turn in beside:
        record = await room.ended(turn)
        assert (record.status, record.attempts) == ("completed", 1)
        assert await room.text(turn) == "".join(f"{number} " for number in range(30))
    assert not worker.stopped


async def test_a_cancel_hook_cancels_a_task_of_its_turns_agent(room: Room, worker: Worker) -> None:
    tasks: list[asyncio.Task[bool]] = []

    @worker.agent("searching")
    async def searching(turn: Turn) -> None:
        await turn.pipe(["first"])
        tasks.append(asyncio.create_task(asyncio.Event().wait()))
        await asyncio.wait(tasks)

    @worker.on_cancel("searching")
    async def stop_searching(request: CancelRequest) -> bool:
        return tasks[0].cancel()

    await worker.ready.wait()
    turn = await room.send("go", agent="searching")

    async def is_searching() -> bool:
        return bool(tasks)

    await wait_until(is_searching)
    await room.cancel(turn)
    assert (await room.ended(turn)).status == "cancelled"
    assert tasks[0].cancelled()


async def test_a_worker_that_is_cancelled_from_outside_ends(settings: MakeSettings) -> None:
    worker = Worker(settings())
    worker.agent("idle")(_idle)
    running = asyncio.create_task(worker.run())
    await worker.ready.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 10)
    assert worker.stopped


@pytest.mark.parametrize("first", ["host", "agent"])
async def test_a_cancel_from_outside_counts_in_the_iteration_of_a_sweep(
    room: Room, settings: MakeSettings, first: str
) -> None:
    worker = Worker(settings())
    host: list[asyncio.Task[None]] = []

    @worker.agent("sweeper")
    async def sweeper(turn: Turn) -> None:
        await turn.pipe(["before"])
        loop = asyncio.get_running_loop()
        if first == "host":
            loop.call_soon(host[0].cancel, context=contextvars.Context())
            loop.call_soon(sweep)
        else:
            sweep()
            loop.call_soon(host[0].cancel, context=contextvars.Context())
        await asyncio.sleep(60)

    def sweep() -> None:
        run = next(task for task in asyncio.all_tasks() if task.get_name() == "worker-run")
        for task in (host[0], run):
            task.cancel()

    host.append(asyncio.create_task(worker.run()))
    await worker.ready.wait()
    await room.send("go", agent="sweeper")
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(host[0]), 10)
    assert host[0].cancelled() and worker.stopped


async def _idle(turn: Turn) -> None: ...


CHILDREN: list[int] = []


def fork() -> bool:
    """Whether this is the child, which goes on as if it were alone."""
    if child := os.fork():
        CHILDREN.append(child)
    return not child


async def in_the_agent(turn: Turn) -> None:
    who = "child" if fork() else "parent"
    await turn.pipe([who])


async def in_a_tool(turn: Turn) -> None:
    child = await turn.tool(ToolCall("fork", {}), fork)
    await turn.pipe(["child" if child else "parent"])


async def that_raises(turn: Turn) -> None:
    if fork():
        raise ValueError("in the child")
    await turn.pipe(["parent"])


async def that_exits(turn: Turn) -> None:
    if fork():
        raise SystemExit(7)
    await turn.pipe(["parent"])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("agent", "status"), [(in_the_agent, 1), (in_a_tool, 1), (that_raises, 1), (that_exits, 7)]
)
async def test_a_child_that_an_agent_forks_ends_and_takes_nothing_from_its_parent(
    room: Room, worker: Worker, agent: Any, status: int
) -> None:
    worker.agent("forks")(agent)
    await worker.ready.wait()
    turn = await room.send("go", agent="forks")
    record = await room.ended(turn)
    assert (record.status, record.attempts) == ("completed", 1)
    assert await room.text(turn) == "parent"
    child = CHILDREN.pop()
    exited: list[int] = []

    def over() -> bool:
        pid, how = os.waitpid(child, os.WNOHANG)
        if pid:
            exited.append(os.waitstatus_to_exitcode(how))
        return bool(pid)

    await wait_until(over)
    assert exited == [status]
    assert (await room.ended(await room.send("go", agent="steady"))).status == "completed"


async def test_a_turn_used_in_another_event_loop_gets_an_error(room: Room, worker: Worker) -> None:
    @worker.agent("elsewhere")
    async def elsewhere(turn: Turn) -> None:
        def work() -> str:
            asyncio.run(_write(turn))
            return "done"

        await turn.tool(ToolCall("loop", {}), work)

    async def _write(turn: Turn) -> None:
        (await turn.pipe(["from another loop"])).raise_for_error()

    await worker.ready.wait()
    record = await room.ended(await room.send("go", agent="elsewhere"))
    assert record.status == "failed"
    assert (await room.ended(await room.send("go", agent="steady"))).status == "completed"
