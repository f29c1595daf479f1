"""A running exporter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from selfhost_transport.exporter import Export, TurnExporter


@asynccontextmanager
async def exporting(exporter: TurnExporter, export: Export) -> AsyncIterator[TurnExporter]:
    """An exporter at work."""
    running = asyncio.create_task(exporter.run(export))
    ready = asyncio.create_task(exporter.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    try:
        yield exporter
    finally:
        exporter.stop()
        await running
