"""Fan-out: one session, many connections: a gateway's CPU per delivered frame, beside servers that send as much.

Those are a C server, which does nothing else, and where Node and the packages of benchmarks/rivals are installed, Node
`ws` and socket.io in a process of their own, which send a text they have at hand: no Redis, no order, no resuming.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from urllib.parse import quote

from benchmarks.figures import Figure
from benchmarks.native_programs import NativePrograms, Program
from benchmarks.rig import KEY, TOKEN, Cpu, gateway, paced, rig
from benchmarks.rivals.systems import FOLDER, node_missing
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
_NODE_WARMUP_S = 1.0
_NODE_KINDS = ("ws", "socket.io")


def run(seconds: float) -> list[Figure]:
    """Figures of this stage; none without a C compiler."""
    with NativePrograms() as programs:
        if not programs.available:
            return []
        return [figure for size in _SIZES for figure in asyncio.run(_compare(programs, size, seconds))]


async def _compare(programs: NativePrograms, connections: int, seconds: float) -> list[Figure]:
    ours, frame_bytes = await _gateway_us(programs, connections, seconds)
    rate = str(_DELIVERIES_PER_S / connections)
    floor = await programs.start("floor", str(frame_bytes), rate, str(connections))
    found = [
        Figure("fan-out", f"gateway, {connections} connections", ours, "us per delivery"),
        await _other(programs, floor, "C and epoll", connections, seconds),
    ]
    for kind in _NODE_KINDS if not node_missing() else ():
        node = await Program.start("node", str(FOLDER / "fanout.mjs"), kind, str(frame_bytes), rate)
        found.append(await _other(programs, node, f"Node {kind}", connections, seconds))
    found += [
        Figure("fan-out", f"gateway over {other.name}", ours / other.value, "ratio") for other in found[1:]
    ]
    return found


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
        # The client in C sends no header.
        path = f"{url[url.index('/?') :]}&key={quote(KEY)}"
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


async def _other(
    programs: NativePrograms, server: Program, name: str, connections: int, seconds: float
) -> Figure:
    """A server that sends by itself; the same client as for the gateway reads."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.kill)
        target, first_frames, first = "/", 0, b""
        if "socket.io" in name:
            # engine.io's opening and the answer to the connect of the namespace.
            target, first_frames = "/socket.io/?EIO=4&transport=websocket", 2
            first = client_frame(Opcode.TEXT, b"40")
        port = await server.line()
        client = await programs.start(
            "client", "127.0.0.1", port, target, str(connections), str(first_frames), first.hex()
        )
        stack.push_async_callback(client.kill)
        assert await client.line() == "ready"
        server.send_line()
        # The length of the measurement, and what fanout.mjs does not count.
        await asyncio.sleep(seconds + (_NODE_WARMUP_S if "Node" in name else 0))
        server.send_line()
        rounds, cpu_us = await server.finish()
        us = cpu_us / (rounds * connections)
        return Figure("fan-out", f"{name}, {connections} connections", us, "us per delivery")
