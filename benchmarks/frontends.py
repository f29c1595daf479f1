"""Front ends: one session, many readers over HTTP: a gateway's CPU per delivered chunk, beside Ably's frames; and idle streams.

The load is the same for all: one turn, appends at a steady pace, as many readers. They are measured in turn, several
times, so that whatever else the machine does disturbs all of them alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

import psutil

from benchmarks.figures import Figure
from benchmarks.readers import Readers, Request
from benchmarks.rig import TOKEN, Cpu, OpenTurn, Rig, gateway, paced, rig
from selfhost_transport.turns.responses_object import ResponseId

_SESSION = "bench:fan"
_READERS = 500
_DELIVERIES_PER_S = 5_000.0
_ROUNDS = 3
_IDLE = 5000
_WARM = 200
_UNLIMITED = "[limits]\nnew_sessions_per_s = 0\n"


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """How readers of one kind ask for a session, and how what they get is counted."""

    name: str
    request: Callable[[OpenTurn], Request]


def _get(path: str) -> Callable[[OpenTurn], Request]:
    return lambda turn: Request("GET", path)


def _response(turn: OpenTurn) -> Request:
    response_id = ResponseId(_SESSION, turn.lease.turn_id)
    return Request("GET", f"/v1/responses/{response_id}?stream=true&starting_after=0")


FRONT_ENDS = (
    FrontEnd("Ably frames", lambda turn: Request.websocket(_SESSION)),
    FrontEnd("/v1 events", _get(f"/v1/sessions/{_SESSION}/events")),
    FrontEnd("UI message stream", _get(f"/v1/ui/{_SESSION}/stream")),
    FrontEnd(
        "AG-UI, joined",
        lambda turn: Request("GET", f"/v1/agui?threadId={_SESSION}&runId={turn.lease.turn_id}@{_SESSION}"),
    ),
    FrontEnd(
        "AG-UI, connected",
        lambda turn: Request(
            "POST", "/v1/agui/connect", {"threadId": _SESSION, "runId": "r", "protocolVersion": "1.0"}
        ),
    ),
    FrontEnd("OpenAI's Responses", _response),
)


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return [*asyncio.run(_costs(seconds)), *asyncio.run(_idle())]


async def _costs(seconds: float) -> list[Figure]:
    found: dict[str, list[float]] = {one.name: [] for one in FRONT_ENDS}
    for _ in range(_ROUNDS):
        for one in FRONT_ENDS:
            found[one.name].append(await _cost(one, seconds))
    return [
        Figure("front ends", f"{name}, {_READERS} readers", median(costs), "us per delivered chunk")
        for name, costs in found.items()
    ]


async def _cost(front_end: FrontEnd, seconds: float) -> float:
    """CPU of the gateway for each chunk that a reader got."""
    async with rig() as bench, gateway(bench.server) as child:
        address = await child.ready()
        turn = await bench.open_text(_SESSION)
        async with Readers(address, front_end.request(turn), _READERS) as readers:
            rate = _DELIVERIES_PER_S / _READERS
            await _append(bench, turn, rate, 1.0)  # what is made once
            before = await readers.delivered()
            cpu = Cpu(child.pid)
            await _append(bench, turn, rate, seconds)
            delivered = await readers.delivered() - before
            if not delivered:
                raise RuntimeError(f"the readers of {front_end.name} got nothing")
            return cpu.spent_us() / delivered


async def _append(bench: Rig, turn: OpenTurn, rate: float, seconds: float) -> None:
    replies: list[Awaitable[object]] = []

    def step(due: int) -> None:
        replies.extend(bench.turns.append(turn.lease, turn.text, TOKEN) for _ in range(due))

    await paced(rate, seconds, step)
    await asyncio.gather(*replies)


async def _idle() -> list[Figure]:
    """Memory of event streams on which nothing happens, a session each."""
    async with AsyncExitStack() as stack:
        bench = await stack.enter_async_context(rig())
        child = await stack.enter_async_context(gateway(bench.server, _UNLIMITED))
        address, process = await child.ready(), psutil.Process(child.pid)
        await stack.enter_async_context(
            Readers(address, Request("GET", "/v1/sessions/bench:warm-{}/events"), _WARM)
        )
        before = process.memory_info().rss
        await stack.enter_async_context(
            Readers(address, Request("GET", "/v1/sessions/bench:idle-{}/events"), _IDLE)
        )
        kilobytes = (process.memory_info().rss - before) / _IDLE / 1024
        return [Figure("front ends", f"{_IDLE} idle event streams, a session each", kilobytes, "KB each")]
