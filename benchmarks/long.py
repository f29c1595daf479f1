"""A conversation of 5,000 turns: a late device's first view, older messages, a send, what the model is given (P14)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import httpx
import psutil

from agent_worker.agent.conversation import Conversation
from benchmarks.figures import Figure
from benchmarks.rig import AGENT, KEY, Cpu, Rig, gateway, rig
from gateway.commands.branch import find_parent
from selfhost_transport import ClientTransport
from selfhost_transport.store.appends import MessageAppend
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns import chunks as c
from selfhost_transport.turns import encoder, inputs, lifecycle
from selfhost_transport.turns.context import context_for_input
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.lifecycle import RunReason, StepReason
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import parse_position

TURNS = 5_000
_QUICK_TURNS = 500
_ROUNDS = 15
_SESSION = "bench:long"
_ANSWER = "An answer of a dozen words, which is about what a short one has. "
_MB = 1e6


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return asyncio.run(_run(TURNS if seconds >= 2 else _QUICK_TURNS))


async def _run(turns: int) -> list[Figure]:
    async with rig() as bench, gateway(bench.server) as child:
        newest = await _fill(bench, turns)
        url, process = await child.ready(), psutil.Process(child.pid)
        before = process.memory_info().rss
        figures = [
            Figure("long", f"{turns} turns: {name}", value, unit)
            for name, value, unit in (
                *await _views(url, turns, Cpu(child.pid)),
                *await _requests(bench, url, newest),
                *await _reading(bench, turns, newest),
            )
        ]
        grown = (process.memory_info().rss - before) / _MB
        return [*figures, Figure("long", f"{turns} turns: gateway, memory grown meanwhile", grown, "MB")]


async def _views(url: str, turns: int, gateway_cpu: Cpu) -> list[tuple[str, float, str]]:
    """A late device's first view of the newest messages; then everything, page by page."""
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    async with _connect(url, 100) as late:
        first_mb = (process.memory_info().rss - before) / _MB
        older_ms = await _timed_ms(lambda: late.view.load_older(100), rounds=5)
        started = time.perf_counter()
        while late.view.has_older:
            await late.view.load_older(1000)
        whole_s = time.perf_counter() - started
        assert len(late.view.messages) == 2 * turns
        whole_mb = (process.memory_info().rss - before) / _MB
    found: list[tuple[str, float, str]] = []
    for shown in (20, 100):
        gateway_cpu.spent_us()
        own = time.process_time()
        wall = await _connect_ms(url, shown)
        own_ms, gateway_ms = (time.process_time() - own) * 1e3, gateway_cpu.spent_us() / 1e3
        what = f"first view, the newest {shown} messages"
        found += [
            (what, wall, "ms, p50"),
            (f"{what}: client", own_ms / _ROUNDS, "ms of CPU"),
            (f"{what}: gateway", gateway_ms / _ROUNDS, "ms of CPU"),
        ]
    return [
        *found,
        ("100 older messages", older_ms, "ms, p50"),
        ("all of them, 1,000 at a time", whole_s, "s"),
        ("client, memory of the first view", first_mb, "MB"),
        ("client, memory of all messages", whole_mb, "MB"),
    ]


async def _requests(bench: Rig, url: str, newest: str) -> list[tuple[str, float, str]]:
    """What the gateway reads for plain HTTP, and for a send of someone who has read nothing."""
    credentials = httpx.BasicAuth(*KEY.split(":"))
    async with httpx.AsyncClient(base_url=url, auth=credentials, trust_env=False) as http:

        async def messages() -> None:
            found = (await http.get(f"/v1/sessions/{_SESSION}/messages", params={"limit": 50})).json()
            assert len(found["messages"]) == 50
            assert found["messages"][-1]["codecMessageId"] == newest

        async def parent() -> None:
            assert await find_parent(bench.sessions, _SESSION, Headers({}, {})) == newest

        return [
            ("GET messages, limit 50", await _timed_ms(messages), "ms, p50"),
            ("what a send without a parent follows", await _timed_ms(parent), "ms, p50"),
        ]


async def _reading(bench: Rig, turns: int, newest: str) -> list[tuple[str, float, str]]:
    """What a worker reads for the model, and how long other turns on its loop are held up by that.

    In CPU time of the thread, so that other processes do not count.
    """
    ids = inputs.InputIds("question", "event")
    question = inputs.user_message([TextPart("What now?")], ids, client_id="user-1", parent=newest)
    published = await bench.sessions.publish(_SESSION, question)
    context = context_for_input(question[-1], session=_SESSION, agent_client_id=AGENT)
    lease = Lease(_SESSION, context.turn_id, 1, 1, 3, "", published.epoch, published.position, b"")
    conversation = Conversation(bench.sessions.history, lease, context)
    found: list[tuple[str, float, str]] = []
    for name, last in (("the last 20 messages", 20), ("the whole branch", None)):
        neighbour, started = _Neighbour(), time.thread_time()
        given = await conversation.messages(last=last)
        took_ms = (time.thread_time() - started) * 1e3
        await neighbour.stop()
        assert len(given) == (last or 2 * turns + 1)
        found += [
            (f"worker, {name}", took_ms, "ms of CPU"),
            (f"worker, longest pause for {name}", neighbour.longest_ms, "ms of CPU"),
        ]
    return found


class _Neighbour:
    """Something else that the loop has to do, and how long it was kept waiting."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest_ms = max(self.longest_ms, (now - before) * 1e3)
            before = now

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def _connect(url: str, shown: int) -> Any:
    return ClientTransport.connect(
        url.replace("http", "ws", 1), channel=_SESSION, key=KEY, client_id="late", history_limit=shown
    )


async def _connect_ms(url: str, shown: int) -> float:
    async def once() -> None:
        async with _connect(url, shown) as late:
            assert len(late.view.messages) == shown

    return await _timed_ms(once)


async def _timed_ms(work: Callable[[], Awaitable[object]], rounds: int = _ROUNDS) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        await work()
        times.append((time.perf_counter() - started) * 1e3)
    return median(times)


async def _fill(bench: Rig, turns: int) -> str:
    """Question and answer in turns, entry by entry as they are written. Returns the newest message."""
    parent: str | None = None
    for number in range(turns):
        parent = await _turn(bench, number, parent)
    assert parent is not None
    return parent


async def _turn(bench: Rig, number: int, parent: str | None) -> str:
    ids = inputs.InputIds(f"question-{number}", f"event-{number}")
    asked = inputs.user_message([TextPart(f"Question {number}?")], ids, client_id="user-1", parent=parent)
    context = context_for_input(asked[-1], session=_SESSION, agent_client_id=AGENT)
    run, answer = context.turn_id, f"answer-{number}"

    async def write(*messages: Message) -> list[str]:
        # All leave in one write, and arrive in order.
        written = await asyncio.gather(
            *(bench.sessions.publish(_SESSION, [one], groups=(run,)) for one in messages)
        )
        return [published.serials(1)[0] for published in written]

    await bench.sessions.publish(_SESSION, asked)
    _, step = await write(lifecycle.run_start(context), lifecycle.step_start(context))
    coder = encoder.Encoder(context, answer, step)
    opening = [op for chunk in _opening(number) for op in coder.encode(chunk)]
    serials = await write(*(op.message for op in opening if isinstance(op, encoder.Create)))
    (delta,) = coder.encode(c.TextDelta("text", _ANSWER))
    (close,) = coder.encode(c.TextEnd("text"))
    assert isinstance(delta, encoder.Append) and isinstance(close, encoder.Close)
    ref = Ref(parse_position(serials[-1])[0])
    await bench.sessions.append_all(
        _SESSION,
        ref,
        [MessageAppend(delta.data, extras=delta.extras), MessageAppend("", extras=close.extras)],
    )
    closing = [op for chunk in (c.FinishStep(), c.Finish("stop")) for op in coder.encode(chunk)]
    await write(
        *(op.message for op in closing if isinstance(op, encoder.Create)),
        lifecycle.step_end(context, step, StepReason.COMPLETE),
        lifecycle.run_end(context, RunReason.COMPLETE),
    )
    return answer


def _opening(number: int) -> list[c.Chunk]:
    call = f"call-{number}"
    tool: list[c.Chunk] = [
        c.ToolInputAvailable(call, "weather", {"city": "Ulm"}), c.ToolOutputAvailable(call, {"sun": True}),
    ]  # fmt: skip
    return [c.Start(), c.StartStep(), *(tool if number % 3 == 0 else []), c.TextStart("text")]
