"""Hub: a gateway's whole work for one notification, except for the system calls of its sockets."""

from __future__ import annotations

import asyncio

from benchmarks.figures import Figure
from benchmarks.rig import TOKEN, per_call_us, rig
from gateway.background import Background
from gateway.fanout.delivery import Variant
from gateway.fanout.log_follower import LogFollower
from gateway.fanout.subscription import Subscription
from selfhost_transport.accelerator import SendBuffer
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.serial import Position


class _Nowhere:
    """An outlet that counts."""

    congested = False

    def __init__(self) -> None:
        self.frames = 0
        self.gaps = 0
        # As that of a websocket, without one.
        self.buffer = SendBuffer(self.write)

    def write(self, frame: bytes) -> None:
        self.frames += 1

    def delivered(self, count: int) -> None:
        """As the feed's counters."""

    def fanned_out(self, written_ms: int, count: int = 1) -> None:
        pass

    def jumped(self) -> None:
        """Not counted."""

    def gap(self) -> None:
        """As the feed's counters."""
        self.gaps += 1


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return [asyncio.run(_run(watchers)) for watchers in (1, 10, 100)]


async def _run(watchers: int) -> Figure:
    async with rig() as bench:
        session, outlet = "bench:1", _Nowhere()
        outlets = [outlet, *(_Nowhere() for _ in range(watchers - 1))]
        tasks = Background("bench")
        follower = LogFollower(session, bench.sessions, tasks, outlet)
        await follower.start()
        for number, reader in enumerate(outlets):
            fmt = (Format.JSON, Format.MSGPACK)[number % 2]
            subscription = Subscription(reader, Variant(fmt, session), lambda gap: None)
            follower.feed.add(subscription)
            subscription.release()
        turn = await bench.open_text(session)
        # Nothing is subscribed: what the turn's opening wrote is read from the log, as after a reconnect.
        follower.compare()
        await tasks.finish()
        head = (await bench.sessions.open(session)).position
        entry = turn.text.entry_head + b"\x91\xa6" + TOKEN.encode()
        last = head

        def notify() -> None:
            nonlocal last
            position = _next(last)
            follower.notify(f"{position.stream_id} {last.stream_id} ".encode() + entry)
            last = position

        outlet.frames = outlet.gaps = 0
        cost = per_call_us(notify)
        assert outlet.frames and not outlet.gaps
        await tasks.close()
        return Figure("hub", f"notification to {watchers} written frames", cost, "us")


def _next(position: Position) -> Position:
    if position.counter < 900:
        return Position(position.ms, position.counter + 1)
    return Position(position.ms + 1, 0)
