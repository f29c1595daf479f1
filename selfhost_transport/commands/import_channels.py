"""`import`: conversations from Ably's cloud, or from another deployment, into sessions here."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from selfhost_transport.commands.stores import opened_stores
from selfhost_transport.errors import InvalidArgument, TransportError
from selfhost_transport.importer.importer import Imported, Importer, parse_channels
from selfhost_transport.importer.source import Source
from selfhost_transport.settings import Settings

Channels = Sequence[tuple[str, str | None]]


def channels_of(names: Sequence[str], file: str | None, session: str | None) -> Channels:
    """What the command line names, each once. Raises InvalidArgument."""
    if session is not None and (file is not None or len(names) != 1):
        raise InvalidArgument(
            "--as names the session of one channel; for more, a file has `channel<TAB>session` lines"
        )
    found = [(name, session) for name in names]
    if file is not None:
        found += parse_channels(_read(file))
    if not found:
        raise InvalidArgument("name the channels to import, or a file of them with --channels")
    return list(dict.fromkeys(found))


def run_import(
    settings: Settings, source: Source, channels: Channels, *, dry_run: bool, as_json: bool
) -> bool:
    """Import channels one after the other; a channel that fails does not stop the others. Whether all succeeded.

    SIGINT and SIGTERM stop it between two publishes.
    """
    return asyncio.run(_run(settings, source, channels, dry_run=dry_run, as_json=as_json))


async def _run(
    settings: Settings, source: Source, channels: Channels, *, dry_run: bool, as_json: bool
) -> bool:
    working = asyncio.current_task()
    assert working is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    failed = 0
    try:
        async with opened_stores(settings) as stores:
            importer = Importer(stores, source, now_ms=int(time.time() * 1000), dry_run=dry_run)
            with _Bars(len(channels), quiet=as_json) as bars:
                for channel, session in channels:
                    with bars.channel(channel):
                        try:
                            report = await importer.run(channel, session, bars.moved)
                        except TransportError as error:
                            failed += 1
                            bars.print(_failure(channel, error, as_json=as_json))
                        else:
                            bars.print(_success(report, as_json=as_json))
    except asyncio.CancelledError:
        typer.echo("stopped; run the same command again to go on", err=True)
        return False
    finally:
        await source.close()
    if len(channels) > 1 and not as_json:
        typer.echo(
            f"{len(channels) - failed} of {len(channels)} channels imported"
            + (", see above" if failed else "")
        )
    return failed == 0


class _Bars:
    """One bar for the channels, one for the channel at work: how near to now its history has come."""

    def __init__(self, channels: int, *, quiet: bool) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            # A channel's name may look like markup.
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            TextColumn("{task.fields[details]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            transient=True,
        )
        self._all = self._bars.add_task("channels", total=channels, details="", visible=channels > 1)
        self._one: TaskID | None = None

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def channel(self, name: str) -> Iterator[None]:
        self._one = self._bars.add_task(name[:40], total=None, details="")
        try:
            yield
        finally:
            self._bars.remove_task(self._one)
            self._one = None
            self._bars.advance(self._all)

    def moved(self, report: Imported) -> None:
        if self._one is None or report.first_ms is None or report.last_ms is None:
            return
        span_ms = max(1, int(time.time() * 1000) - report.first_ms)
        details = f"{report.messages:,} messages, {_day(report.last_ms)}"
        self._bars.update(
            self._one, total=span_ms, completed=report.last_ms - report.first_ms, details=details
        )

    def print(self, text: str) -> None:
        if self._bars.disable or not sys.stdout.isatty():
            typer.echo(text)
        else:
            # Above the bars, on the same terminal.
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _success(report: Imported, *, as_json: bool) -> str:
    if as_json:
        fields = {
            name: value for name, value in dataclasses.asdict(report).items() if not name.startswith("_")
        }
        return json.dumps(fields)
    name = report.channel if report.session == report.channel else f"{report.channel} -> {report.session}"
    lines = [f"{name}: {_what(report)}", *(f"  {hint}" for hint in _hints(report))]
    return "\n".join(lines)


def _what(report: Imported) -> str:
    if not report.messages:
        return "up to date" if report.known else "nothing found"
    verb = "would import" if report.dry_run else "imported"
    since, until = _day(report.first_ms or 0), _day(report.last_ms or 0)
    days = since if since == until else f"{since} to {until}"
    return f"{verb} {report.messages:,} messages, {report.turns:,} turns, {days}"


def _hints(report: Imported) -> Iterator[str]:
    if not report.messages and not report.known:
        yield "the channel keeps no history there, or has another name (names are case-sensitive and have their namespace)"
    if report.truncated:
        yield "it begins in the middle: the source has removed older messages"
    if report.growing:
        yield f"{report.growing} messages were still being written there, and are cut where they were"
    if report.ended:
        yield f"{report.ended} turns that no one had ended there are cancelled"
    if report.annotated:
        yield f"annotations of {report.annotated} messages are left out"
    if report.expired:
        yield f"{report.expired} messages are older than the retention of this namespace, which will remove them"
    if report.messages and report.agent is None and report.turns:
        yield "no worker answers in this namespace: an agent of the JS SDK does, or bind one in [[namespaces]]"


def _failure(channel: str, error: TransportError, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"channel": channel, "error": error.info.to_wire()})
    return f"{channel}: error {error.info.code}: {error}"


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).date().isoformat()


def _read(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the file of channels {file!r} cannot be read: {error}") from error
