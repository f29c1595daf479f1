"""A worker as a part of another asynchronous program (acceptance SDK-6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent_worker.runtime.worker import Worker


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[Worker]:
    """Run a worker beside the body, which begins once it takes turns; afterwards hand back unfinished turns.

    Raises what `Worker.run` does, also when it fails while the body runs: that is then cancelled.
    """
    async with asyncio.TaskGroup() as group:
        running = group.create_task(worker.run(), name="worker")
        ready = group.create_task(worker.ready.wait(), name="worker-ready")
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        try:
            yield worker
        finally:
            worker.stop()
