"""One stage, measured in whichever checkout runs this: `benchmarks.pair` hands the text of this file to both.

It uses what the benchmarks of the checkout have, and measures the hub itself, with one loop for both. Prints its figures
as a JSON object, "name, unit" to number, the lower the better.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from benchmarks import append, fanout, rig, whole
from benchmarks.native_programs import NativePrograms
from gateway.background import Background
from gateway.fanout.delivery import Variant
from gateway.fanout.subscription import Subscription
from gateway.websocket.protocol import RawSocket
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport.loadtest.plan import Load
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.serial import Position

Figures = dict[str, float]
_READERS = (1, 10, 100)
_CONNECTIONS = (50, 500)
_TURNS, _TOKENS = 200, 1000
_WHOLE_S = 4.0
_LIMIT = 1 << 20


def _append(seconds: float) -> Figures:
    append._ceiling = lambda bench, turn: 0.0  # not of interest here
    found = {figure.name: figure.value for figure in append.run(seconds)}
    return {
        "worker, us of CPU per append": found["worker CPU"],
        "Redis, us of CPU per append": found["Redis CPU"],
        "one at a time, us, median": asyncio.run(_one_at_a_time_us(seconds)),
    }


async def _one_at_a_time_us(seconds: float) -> float:
    """The median, for long enough that the processors' ways of waiting even out."""
    async with rig.rig() as bench:
        turn, times = await bench.open_text("bench:1"), list[float]()
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            await bench.turns.append(turn.lease, turn.text, rig.TOKEN)
            times.append(time.perf_counter() - started)
        return statistics.median(times) * 1e6


def _fanout(seconds: float) -> Figures:
    figures = {}
    with NativePrograms() as programs:
        if not programs.available:
            sys.exit("the stage fanout needs a C compiler")
        for count in _CONNECTIONS:
            cost, _ = asyncio.run(fanout._gateway_us(programs, count, seconds))
            figures[f"gateway, us of CPU per delivery, {count} readers"] = cost
    return figures


def _whole(seconds: float) -> Figures:
    load = Load(turns=_TURNS, tokens=_TOKENS, duration_s=seconds * _WHOLE_S)
    result = asyncio.run(whole.measure(load, 0))
    return {f"{role}, us of CPU per token": usage.us_per_token for role, usage in result.usage.items()}


def _hub(seconds: float) -> Figures:
    """A notification's whole way to websockets on transports that count: no system calls, and no transport's work."""
    return {
        f"gateway, us per notification, {readers} readers": asyncio.run(
            _notification_us(readers, seconds / 2)
        )
        for readers in _READERS
    }


class _Transport(asyncio.Transport):
    """Counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, data: object) -> None:
        self.writes += 1

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        """Nothing arrives."""


class _Listener:
    """Of a websocket whose client is silent."""

    busy = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class _Counters:
    def __init__(self) -> None:
        self.gaps = 0

    def delivered(self, count: int) -> None:
        """Not counted."""

    def fanned_out(self, written_ms: int, count: int = 1) -> None:
        """Not counted."""

    def gap(self) -> None:
        self.gaps += 1


async def _notification_us(readers: int, seconds: float) -> float:
    async with rig.rig() as bench:
        session, tasks, counters, write_batch = "bench:1", Background("bench"), _Counters(), WriteBatch()
        follower = _follower(session, bench.sessions, tasks, counters, write_batch)
        await follower.start()
        transports = [_Transport() for _ in range(readers)]
        for number, transport in enumerate(transports):
            socket = RawSocket(transport, set(), 1000)
            socket.start(cast(Any, _Listener()), tasks, _LIMIT, write_batch)
            _subscribe(follower, socket, Variant((Format.JSON, Format.MSGPACK)[number % 2], session))
        turn = await bench.open_text(session)
        # What the turn's opening wrote is read from the log.
        follower.compare()
        await tasks.finish()
        last = (await bench.sessions.open(session)).position
        entry = turn.text.entry_head + b"\x91\xa6" + rig.TOKEN.encode()
        calls = 0

        def notify() -> None:
            nonlocal last, calls
            position = Position(last.ms + 1, 0)
            follower.notify(f"{position.stream_id} {last.stream_id} ".encode() + entry)
            last, calls = position, calls + 1

        counters.gaps = 0
        for transport in transports:
            transport.writes = 0
        cost = rig.per_call_us(notify, seconds)
        if counters.gaps or any(transport.writes != calls for transport in transports):
            sys.exit("the hub did not write each notification once to each reader")
        await tasks.close()
        return cost


def _follower(session: str, store: Any, tasks: Background, counters: Any, write_batch: WriteBatch) -> Any:
    """What takes a session's notifications: a feed, or where following the log is a part of its own, that."""
    try:
        module: Any = import_module("gateway.fanout.log_follower")
    except ModuleNotFoundError:
        module = import_module("gateway.fanout.feed")
        return module.SessionFeed(session, store, tasks, counters)
    follower = module.LogFollower(session, store, tasks, counters)
    follower.feed.write_batch = write_batch
    return follower


def _subscribe(follower: Any, socket: RawSocket, variant: Variant) -> None:
    feed = getattr(follower, "feed", follower)
    subscription = Subscription(socket, variant, lambda gap: None)
    feed.add(subscription)
    if hasattr(feed, "release"):
        feed.release(subscription)
    else:
        subscription.release()


_STAGES: dict[str, Callable[[float], Figures]] = {
    "append": _append, "hub": _hub, "fanout": _fanout, "whole": _whole,
}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(_STAGES[sys.argv[1]](float(sys.argv[2]))))
