"""A worker whose user code misbehaves in every way that the sent text names: `WHERE WAY`.

Beside it an agent `neighbour` streams, and knows how long its loop kept it waiting: by the clock, less the time in which
the loop's thread was ready to run and the machine ran something else instead. So a busy machine does not count, and user
code that computes or sleeps on the loop does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from agent_worker import AgentError, CancelRequest, ToolCall, Turn, Worker
from selfhost_transport.errors import LeaseLost, StoreUnavailable

# Of Linux: what a thread ran, and what it waited for a processor, ns.
SCHEDULER = Path("/proc/thread-self/schedstat")
STEP_S = 0.005
LIMIT_S = 0.1


class OddBase(BaseException):
    """Neither an exit nor an Exception."""


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Hostile(AgentError):
    """Its own information cannot be read."""

    @property
    def info(self) -> Any:
        raise SystemExit("read")

    @info.setter
    def info(self, value: Any) -> None:
        pass


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1) + 1


def circular() -> BaseException:
    error, other = ValueError("a"), ValueError("b")
    error.__cause__, other.__cause__ = other, error
    return error


RAISED: dict[str, Callable[[], BaseException]] = {
    "system-exit": lambda: SystemExit(3),
    "system-exit-text": lambda: SystemExit("bye \ud83d"),
    "keyboard-interrupt": KeyboardInterrupt,
    "generator-exit": GeneratorExit,
    "cancelled": lambda: asyncio.CancelledError("me"),
    "stop-iteration": lambda: StopIteration(1),
    "stop-async-iteration": StopAsyncIteration,
    "odd-base": lambda: OddBase("odd"),
    "group-of-exits": lambda: BaseExceptionGroup("all", [SystemExit(1), ValueError("x")]),
    "group": lambda: ExceptionGroup("all", [ValueError("x"), KeyError("y")]),
    "group-that-tells": lambda: ExceptionGroup("all", [ValueError("x"), AgentError("reported in a group")]),
    "mute": Mute,
    "hostile": lambda: Hostile("x"),
    "half-a-character": lambda: AgentError("half \ud83d"),
    "bytes-message": lambda: AgentError(b"raw"),  # type: ignore[arg-type]
    "no-message": lambda: AgentError(None),  # type: ignore[arg-type]
    "text-code": lambda: AgentError("x", code="many"),  # type: ignore[arg-type]
    "huge-code": lambda: AgentError("x", code=10**30),
    "long-message": lambda: AgentError("x" * 100_000),
    "rate-limited": lambda: AgentError("slow down", status_code=429),
    "lease-lost": lambda: LeaseLost("not true"),
    "store": lambda: StoreUnavailable("not true either"),
    "memory": MemoryError,
    "timeout": TimeoutError,
    "os-error": lambda: OSError(28, "disk full"),
    "assertion": lambda: AssertionError({"a": object()}),
    "circular-cause": circular,
    "plain": lambda: ValueError("x"),
}


def fail(way: str) -> None:
    if way == "recursion":
        recurse()
    raise RAISED[way]()


WAYS = (*RAISED, "recursion")


class Unclean:
    """An asynchronous source whose clean-up misbehaves too."""

    def __init__(self, way: str, items: int) -> None:
        self._way, self._left = way, items

    def __aiter__(self) -> Unclean:
        return self

    async def __anext__(self) -> str:
        if not self._left:
            raise ValueError("broken off")
        self._left -= 1
        return "item "

    async def aclose(self) -> None:
        fail(self._way)


async def agent(turn: Turn, way: str) -> AsyncIterator[str]:
    yield "a "
    fail(way)


async def coroutine(turn: Turn, way: str) -> None:
    fail(way)


async def source(turn: Turn, way: str) -> None:
    def items() -> Iterator[str]:
        yield "a "
        fail(way)

    await turn.pipe(items())


async def plain_iterator(turn: Turn, way: str) -> None:
    class Items:
        def __init__(self) -> None:
            self.count = 0

        def __iter__(self) -> Items:
            return self

        def __next__(self) -> str:
            self.count += 1
            if self.count > 2:
                fail(way)
            return "a "

    await turn.pipe(Items())


async def cleanup(turn: Turn, way: str) -> None:
    await turn.pipe(Unclean(way, 2))


async def generator_cleanup(turn: Turn, way: str) -> AsyncIterator[Any]:
    try:
        yield "a "
        yield b"cannot be written"
    finally:
        fail(way)


async def tool(turn: Turn, way: str) -> None:
    async def bad() -> None:
        await asyncio.sleep(0)
        fail(way)

    await turn.tool(ToolCall("bad"), bad)


async def plain_tool(turn: Turn, way: str) -> None:
    await turn.tool(ToolCall("bad"), lambda: fail(way))


async def offload(turn: Turn, way: str) -> None:
    async def keep(result: Any) -> Any:
        fail(way)

    await turn.tool(ToolCall("big"), lambda: "x" * 100, offload=keep, max_bytes=10)


async def task_group(turn: Turn, way: str) -> None:
    async def child() -> None:
        await asyncio.sleep(0)
        fail(way)

    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        group.create_task(asyncio.sleep(0.05))


async def stray_task(turn: Turn, way: str) -> AsyncIterator[str]:
    """The turn itself goes well."""

    async def child() -> None:
        fail(way)

    task = asyncio.create_task(child())
    yield "a "
    await asyncio.wait({task})
    yield "b "


async def while_cancelled(turn: Turn, way: str) -> None:
    await turn.pipe(["a "])
    try:
        await asyncio.sleep(60)
    finally:
        fail(way)


async def hooked(turn: Turn, way: str) -> None:
    await turn.pipe(["a "])
    await asyncio.sleep(60)


async def stop_loop(turn: Turn, way: str) -> AsyncIterator[str]:
    """Only a process of its own can go on after this; the loop of another program is that program's."""
    yield "a "
    loop = asyncio.get_running_loop()
    if way == "stop":
        loop.stop()
    else:
        loop.call_soon(fail, way)
    await asyncio.sleep(0.01)
    yield "b "


async def left_generator(turn: Turn, way: str) -> AsyncIterator[str]:
    """A generator that is dropped half-way, and whose clean-up is called by the loop."""

    async def inner() -> AsyncIterator[str]:
        try:
            yield "a "
            yield "never"
        finally:
            fail(way)

    async for chunk in inner():
        yield chunk
        break
    await asyncio.sleep(0.01)
    yield "b "


async def stray_thread(turn: Turn, way: str) -> AsyncIterator[str]:
    yield "a "
    thread = threading.Thread(target=fail, args=(way,))
    thread.start()
    await asyncio.sleep(0.01)
    yield "b "


async def endless(turn: Turn, way: str) -> AsyncIterator[str]:
    """Goes on whatever happens."""
    yield "a "
    if way == "task":
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
    elif way == "tool":
        await turn.tool(ToolCall("hangs", 300), time.sleep)
    elif way == "thread":
        await asyncio.to_thread(time.sleep, 300)
    elif way == "clean-up":
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(300)


FAILING: dict[str, Callable[[Turn, str], Any]] = {
    "agent": agent,
    "coroutine": coroutine,
    "source": source,
    "plain-iterator": plain_iterator,
    "cleanup": cleanup,
    "generator-cleanup": generator_cleanup,
    "tool": tool,
    "plain-tool": plain_tool,
    "offload": offload,
    "task-group": task_group,
}
FINE: dict[str, Callable[[Turn, str], Any]] = {
    "stray-task": stray_task,
    "left-generator": left_generator,
    "stray-thread": stray_thread,
}
ALONE: dict[str, Callable[[Turn, str], Any]] = {"stop-loop": stop_loop, "endless": endless}
CANCELLED: dict[str, Callable[[Turn, str], Any]] = {
    "while-cancelled": while_cancelled,
    "hook": hooked,
    "plain-hook": hooked,
}


def bad_worker(settings: Any = None) -> Worker:
    """The worker; a function, so that a process can run it too."""
    worker = Worker(settings)
    clock = Clock()

    @worker.agent("bad")
    async def bad(turn: Turn) -> None:
        where, _, way = (await turn.text()).partition(" ")
        doing = (FAILING | FINE | CANCELLED | ALONE)[where](turn, way)
        if isinstance(doing, AsyncIterator):
            (await turn.pipe(doing)).raise_for_error()
        else:
            await doing

    @worker.on_cancel("bad")
    async def hook(request: CancelRequest) -> bool:
        where, _, way = (await request.turn.text()).partition(" ")
        if where == "hook":
            fail(way)
        return True

    for name, function in plain_hooks().items():
        worker.agent(name)(bad)
        worker.on_cancel(name)(function)

    @worker.agent("neighbour")
    async def neighbour(turn: Turn) -> AsyncIterator[str]:
        for number in itertools.count():
            began = clock.now()
            await asyncio.sleep(STEP_S)
            clock.worst = max(clock.worst, clock.now() - began - STEP_S)
            if number % 4 == 0:
                yield f"{number} "

    @worker.agent("gap")
    async def gap(turn: Turn) -> AsyncIterator[str]:
        """The neighbour's longest pause since it was asked last, in seconds."""
        yield str(clock.worst)
        clock.worst = 0.0

    return worker


def alone() -> Worker:
    """The same as a process: `selfhost-transport worker tests.worker.bad_agents:alone`."""
    return bad_worker()


def plain_hooks() -> dict[str, Callable[[CancelRequest], bool]]:
    """By the name of the agent whose hook it is."""

    def make(way: str) -> Callable[[CancelRequest], bool]:
        def hook(request: CancelRequest) -> bool:
            fail(way)
            return True

        return hook

    return {f"hooked-{way}": make(way) for way in WAYS}


class Clock:
    """Time that passes for a thread only while it runs or waits for something, not while it waits for a processor."""

    def __init__(self) -> None:
        self.worst = 0.0

    @staticmethod
    def now() -> float:
        waited_ns = int(SCHEDULER.read_text().split()[1]) if SCHEDULER.exists() else 0
        return time.monotonic() - waited_ns / 1e9
