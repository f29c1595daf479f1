"""One channel's history from a source into a session; goes on where an earlier run stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from selfhost_transport.errors import Conflict, InvalidArgument
from selfhost_transport.importer.placing import Placed, Placer
from selfhost_transport.importer.source import Source
from selfhost_transport.importer.unfinished import endings_of
from selfhost_transport.store.session_import import ImportMark, ImportState
from selfhost_transport.store.stores import Stores
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.channel import check_name
from selfhost_transport.wire.message import Message

_OVERLAP_MS: Final = 60_000
"""What is read again of the time before the mark: a serial and a timestamp may differ a little."""


@dataclass(slots=True)
class Imported:
    """What became of one channel. All but `session` are numbers of this run.

    `ended`: turns that no one at the source had ended, ended here.
    `growing`: messages that were still being written. `expired`: older than the session's retention allows.
    """

    channel: str
    session: str
    messages: int = 0
    turns: int = 0
    annotated: int = 0
    growing: int = 0
    expired: int = 0
    ended: int = 0
    # Messages that an earlier run had taken.
    known: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    # The oldest messages are gone at the source: the conversation begins in the middle.
    truncated: bool = False
    # The agent that answers in the session from now on; None: agents of another SDK do.
    agent: str | None = None
    dry_run: bool = False
    _ids: set[str] = field(default_factory=set, repr=False)


Watch = Callable[[Imported], None]
"""Called after each publish, for a progress bar."""


class Importer:
    """Imports channels of one source into one deployment.

    `dry_run`: reads both, writes nothing. Raises what `Source.pages` does, and StoreUnavailable, StoreFull.
    """

    def __init__(self, stores: Stores, source: Source, *, now_ms: int, dry_run: bool = False) -> None:
        self._stores = stores
        self._source = source
        self._now_ms = now_ms
        self._dry_run = dry_run

    async def run(self, channel: str, session: str | None = None, watch: Watch | None = None) -> Imported:
        """Import what is new in a channel, into the session of the same name unless another is named.

        Raises Conflict for a session that has messages of its own, or of another channel; InvalidChannelName.
        """
        session = channel if session is None else session
        check_name(session)
        state = await self._stores.imports.state(session)
        mark = self._own_mark(state, channel, session)
        rules = self._stores.settings.namespace_for(session)
        report = Imported(channel, session, agent=rules.agent, dry_run=self._dry_run)
        await self._read(report, state, mark, watch or (lambda _: None))
        return report

    def _own_mark(self, state: ImportState, channel: str, session: str) -> ImportMark | None:
        source = self._source.name_of(channel)
        if state.mark is None:
            if state.is_continued:
                raise Conflict(
                    f"session {session!r} has messages already, and older ones cannot be put before them. Import before it "
                    "is used, or give it another name with --as"
                )
            return None
        if state.mark.source != source:
            raise Conflict(f"session {session!r} holds the import of {state.mark.source}, not of {source}")
        return state.mark

    async def _read(
        self, report: Imported, state: ImportState, mark: ImportMark | None, watch: Watch
    ) -> None:
        epoch = state.epoch
        if not self._dry_run:
            epoch = (await self._stores.sessions.open(report.session)).epoch
        writing = _Writing(self, report, state, mark, watch)
        placer = Placer(epoch or "0000000000", mark.position if mark is not None else state.head)
        start_ms = None if mark is None else max(0, mark.position.ms - _OVERLAP_MS)
        last = ""
        async for page in self._source.pages(report.channel, start_ms):
            report.truncated |= page.truncated
            for message in page.messages:
                serial = message.serial or ""
                if serial and (serial <= last or (mark is not None and serial <= mark.serial)):
                    report.known += serial > last
                    continue
                last = serial
                _count(report, message, is_first_run=mark is None)
                for placed in placer.take(message):
                    await writing.write(placed)
        for placed in placer.finish():
            await writing.write(placed)
        await writing.end_turns()

    async def write(
        self, report: Imported, placed: Placed, before: ImportMark | None, serial: str
    ) -> ImportMark:
        """Store one publish, unless it is a dry run. Returns where the import stands."""
        after = ImportMark(placed.position, self._source.name_of(report.channel), serial)
        if not self._dry_run:
            await self._stores.imports.write(report.session, placed.messages, before, after)
        return after

    def expires(self, session: str, ms: int) -> bool:
        """Whether a message of that time is removed by the session's retention at once."""
        kept_ms = self._stores.options.retention_of(session)
        return kept_ms > 0 and ms + kept_ms < self._now_ms

    async def endings(self, report: Imported, after: Placed | ImportMark) -> Placed | None:
        """What ends the turns that no one ended: where workers answer, no one would ever do it."""
        if report.agent is None or self._dry_run:
            return None
        return await endings_of(self._stores.history, report.session, after.position)


class _Writing:
    """The publishes of one channel, in order."""

    def __init__(
        self, importer: Importer, report: Imported, state: ImportState, mark: ImportMark | None, watch: Watch
    ) -> None:
        self._importer = importer
        self._report = report
        self._state = state
        self._mark = mark
        self._watch = watch

    async def write(self, placed: Placed) -> None:
        report = self._report
        if self._state.is_continued:
            raise Conflict(
                f"the conversation goes on in session {report.session!r} since the import, and channel {report.channel!r} "
                "has got newer messages, too: they cannot be put before what was said here"
            )
        self._mark = await self._importer.write(report, placed, self._mark, placed.serial)
        report.messages += len(placed.messages)
        report.first_ms = placed.position.ms if report.first_ms is None else report.first_ms
        report.last_ms = placed.position.ms
        if self._importer.expires(report.session, placed.position.ms):
            report.expired += len(placed.messages)
        self._watch(report)

    async def end_turns(self) -> None:
        """Once all is there. A repeated run, too: the one before may have been killed just before this."""
        if self._mark is None or self._state.is_continued:
            return
        endings = await self._importer.endings(self._report, self._mark)
        if endings is not None:
            await self._importer.write(self._report, endings, self._mark, self._mark.serial)
            self._report.ended = len(endings.messages)


def _count(report: Imported, message: Message, *, is_first_run: bool) -> None:
    report.annotated += bool(message.annotations and message.annotations.get("summary"))
    headers = h.read_headers(message)
    if headers is None:
        return
    report.turns += message.name == h.AI_RUN_START
    report.growing += headers.is_stream and headers.status not in (h.COMPLETE, h.CANCELLED)
    if is_first_run and message.name in (h.AI_INPUT, h.AI_RUN_START):
        report.truncated |= headers.parent is not None and headers.parent not in report._ids
    if headers.codec_message_id is not None:
        report._ids.add(headers.codec_message_id)


def parse_channels(text: str) -> list[tuple[str, str | None]]:
    """A file of channels: one per line, or `channel<TAB>session`; empty lines and `#` comments are passed over.

    Raises InvalidArgument for a line with more.
    """
    found: list[tuple[str, str | None]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        channel, *rest = (part.strip() for part in line.split("\t"))
        if not channel or len(rest) > 1:
            raise InvalidArgument(f"line {number} of the channels is not `channel` or `channel<TAB>session`")
        found.append((channel, rest[0] if rest else None))
    return found
