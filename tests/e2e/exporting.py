"""An exporter that is slow to say that it is done: `python -m tests.e2e.exporting REDIS FILE SECONDS`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from selfhost_transport.exporter import EndedTurn, TurnExporter


def _append(file: Path, turn: EndedTurn) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(turn.to_json()) + "\n")


async def main(redis: str, file: str, seconds: float) -> None:
    """Write each turn to the file, then take so many seconds more."""
    exporter = TurnExporter(redis, lease_s=0.5)

    async def export(turn: EndedTurn) -> None:
        await asyncio.to_thread(_append, Path(file), turn)
        await asyncio.sleep(seconds)

    running = asyncio.create_task(exporter.run(export))
    await exporter.ready.wait()
    print("ready exporter", flush=True)
    await running


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
