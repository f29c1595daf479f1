"""Workers and exporters that are run again: what ended one run does not reach into the next one."""

from __future__ import annotations

import asyncio

from agent_worker import working
from selfhost_transport.exporter import EndedTurn, TurnExporter
from tests.worker.echo import MakeSettings, echo
from tests.worker.exporting import exporting
from tests.worker.session import Room


async def test_a_worker_works_again_and_a_late_stop_was_for_the_last_run(
    room: Room, settings: MakeSettings
) -> None:
    worker = echo(settings())
    for text in ("one", "two"):
        async with working(worker):
            assert not worker.stopped
            await room.ended(await room.send(text))
        assert worker.stopped and not worker.ready.is_set()
        worker.stop()


async def test_an_exporter_exports_again_in_the_next_run(room: Room, settings: MakeSettings) -> None:
    exporter = TurnExporter(settings())
    async with working(echo(settings())):
        for text in ("one", "two"):
            exported: asyncio.Queue[EndedTurn] = asyncio.Queue()
            async with exporting(exporter, exported.put):
                turn_id = await room.send(text)
                assert (await asyncio.wait_for(exported.get(), 10)).turn_id == turn_id
            exporter.stop()
