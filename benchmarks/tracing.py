"""Tracing: CPU that traced turns cost a worker beyond plain ones, per turn and per token; spans go to a collector."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from benchmarks.figures import Figure
from benchmarks.rig import Cpu, Rig, rig
from benchmarks.turn_cost import ended, submit, until
from selfhost_transport.commands.children import Child
from selfhost_transport.settings import ENV_PREFIX

_TOKENS = 500
_TURNS_PER_S = 25
_ROUNDS = 5


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return asyncio.run(_run(max(10, int(seconds * _TURNS_PER_S))))


async def _run(turns: int) -> list[Figure]:
    with _collector() as endpoint:
        async with rig() as bench:
            found: dict[bool, list[float]] = {False: [], True: []}
            for number in range(_ROUNDS * 2):
                is_traced = number % 2 == 1
                found[is_traced].append(await _cost(bench, turns, endpoint if is_traced else None))
    base, with_spans = min(found[False]), min(found[True])
    return [
        Figure("tracing", "a turn of 500 tokens, untraced: worker", base, "us"),
        Figure("tracing", "a turn of 500 tokens, traced: worker", with_spans, "us"),
        Figure("tracing", "added to each token of such a turn", max(0.0, with_spans - base) / _TOKENS, "us"),
    ]


async def _cost(bench: Rig, turns: int, endpoint: str | None) -> float:
    """CPU us per turn of a worker of its own, spans and their export included."""
    environment = {} if endpoint is None else {f"{ENV_PREFIX}TRACING_ENDPOINT": endpoint}
    worker = await Child.start("worker", ("--redis", bench.server.url), environment)
    try:
        await worker.ready()
        await _turns(bench, 5)
        cpu = Cpu(worker.pid)
        await _turns(bench, turns)
        # Spans leave in batches, the last ones after the turns.
        await asyncio.sleep(_EXPORT_S if endpoint is not None else 0)
        return cpu.spent_us() / turns
    finally:
        await worker.stop()


_EXPORT_S = 5.5
"""The exporter of OpenTelemetry sends at least every five seconds."""


async def _turns(bench: Rig, turns: int) -> None:
    before = await ended(bench)
    sends = (submit(bench, f"bench-{n}", f"script: tokens={_TOKENS} rate=0") for n in range(turns))
    await asyncio.gather(*sends)

    async def done() -> bool:
        return await ended(bench) >= before + turns

    await until(done)


@contextmanager
def _collector() -> Iterator[str]:
    """Takes spans and drops them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
