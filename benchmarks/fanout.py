"""Fan-out: one session, many connections: a gateway's CPU per delivered frame, beside a C server's that sends as much."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from benchmarks.figures import Figure
from benchmarks.native_programs import NativePrograms
from benchmarks.rig import KEY, TOKEN, Cpu, gateway, paced, rig
from selfhost_transport.loadtest.framing import Opcode, client_frame
from selfhost_transport.loadtest.plan import Target
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, encode_frame

_SESSION = "bench:fan"
_DELIVERIES_PER_S = 15_000.0
# CONNECTED and ATTACHED.
_FIRST_FRAMES = 2
_SIZES = (50, 500, 2000)


def run(seconds: float) -> list[Figure]:
    """Figures of this stage; none without a C compiler."""
    with NativePrograms() as programs:
        if not programs.available:
            return []
        return [figure for size in _SIZES for figure in asyncio.run(_compare(programs, size, seconds))]


async def _compare(programs: NativePrograms, connections: int, seconds: float) -> list[Figure]:
    ours, frame_bytes = await _gateway_us(programs, connections, seconds)
    floor = await _floor_us(programs, connections, seconds, frame_bytes)
    return [
        Figure("fan-out", f"gateway, {connections} connections", ours, "us per delivery"),
        Figure("fan-out", f"C and epoll, {connections} connections", floor, "us per delivery"),
        Figure("fan-out", f"gateway over C, {connections} connections", ours / floor, "ratio"),
    ]


async def _gateway_us(programs: NativePrograms, connections: int, seconds: float) -> tuple[float, int]:
    """(CPU per delivery, bytes of a frame)."""
    async with AsyncExitStack() as stack:
        bench = await stack.enter_async_context(rig())
        child = await stack.enter_async_context(gateway(bench.server))
        address = await child.ready()
        target = Target.parse([address], KEY, "")
        url = target.socket_url(0, Format.JSON, "viewer")
        attach = client_frame(Opcode.TEXT, encode_frame(Frame(Action.ATTACH, channel=_SESSION), Format.JSON))
        host, _, port = address.removeprefix("http://").partition(":")
        path = url[url.index("/?") :]
        client = await programs.start(
            "client", host, port, path, str(connections), str(_FIRST_FRAMES), attach.hex()
        )
        stack.push_async_callback(client.kill)
        assert await client.line() == "ready"
        turn = await bench.open_text(_SESSION)
        cpu = Cpu(child.pid)
        replies: list[asyncio.Future[bytes]] = []

        def step(due: int) -> None:
            replies.extend(bench.turns.append(turn.lease, turn.text, TOKEN) for _ in range(due))

        await paced(_DELIVERIES_PER_S / connections, seconds, step)
        await asyncio.gather(*replies)
        # What the turn's start sent is counted with the rest: a few frames among thousands.
        frames, size = await client.finish()
        return cpu.spent_us() / frames, int(size / frames)


async def _floor_us(programs: NativePrograms, connections: int, seconds: float, frame_bytes: int) -> float:
    async with AsyncExitStack() as stack:
        rate = _DELIVERIES_PER_S / connections
        floor = await programs.start("floor", str(frame_bytes), str(rate), str(connections))
        stack.push_async_callback(floor.kill)
        client = await programs.start(
            "client", "127.0.0.1", await floor.line(), "/", str(connections), "0", ""
        )
        stack.push_async_callback(client.kill)
        assert await client.line() == "ready"
        floor.send_line()
        await asyncio.sleep(seconds)  # the length of the measurement
        floor.send_line()
        rounds, cpu_us = await floor.finish()
        return cpu_us / (rounds * connections)
