"""`export`: every ended turn as a line of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TextIO

import typer

from selfhost_transport.commands.stores import opened_stores
from selfhost_transport.errors import InvalidArgument, NotFound
from selfhost_transport.exporter import EndedTurn, TurnExporter
from selfhost_transport.settings import Settings

_STDOUT = "-"


def run_export(settings: Settings, to: str, *, name: str, once: bool, lease_s: float) -> None:
    """Append turns to a file (`-`: standard output) until SIGTERM or Ctrl-C; `once`: what waits now.

    A turn counts as exported once its line is on disk. Raises InvalidArgument for a file that cannot be written.
    """
    exporter = TurnExporter(settings, name=name, lease_s=lease_s)
    if to == _STDOUT:
        asyncio.run(_run(exporter, sys.stdout, once=once))
        return
    try:
        with Path(to).open("a+", encoding="utf-8") as lines:
            _begin_line(lines)
            asyncio.run(_run(exporter, lines, once=once))
    except OSError as error:
        raise InvalidArgument(f"cannot write to {to}: {error.strerror}") from error


def run_forget(settings: Settings, name: str) -> None:
    """End an exporter, with what waits for it. Raises NotFound."""
    if not asyncio.run(_forget(settings, name)):
        raise NotFound(f"there is no exporter {name!r}")
    typer.echo(f"exporter {name} is forgotten")


async def _run(exporter: TurnExporter, lines: TextIO, *, once: bool) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, exporter.stop)

    async def write(turn: EndedTurn) -> None:
        lines.write(json.dumps(turn.to_json(), ensure_ascii=False) + "\n")
        lines.flush()
        if lines is not sys.stdout:
            await asyncio.to_thread(os.fsync, lines.fileno())

    running = asyncio.create_task(exporter.run(write, once=once))
    ready = asyncio.create_task(exporter.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done() and not once:
        print(f"ready exporter {exporter.name}", file=sys.stderr, flush=True)
    ready.cancel()
    await running


def _begin_line(lines: TextIO) -> None:
    """A line that a crash has cut is ended, so that it spoils only itself; its turn is exported again."""
    end = lines.seek(0, os.SEEK_END)
    if end == 0:
        return
    with Path(lines.name).open("rb") as raw:
        raw.seek(end - 1)
        if raw.read(1) != b"\n":
            lines.write("\n")


async def _forget(settings: Settings, name: str) -> bool:
    async with opened_stores(settings) as stores:
        return await stores.ended_turns(name).forget()
