"""`inspect`: the current state of a session, for diagnosing a stuck one (OPS-14)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict

from selfhost_transport.commands.ended import WIRE, EndedLine, last_ended
from selfhost_transport.errors import NotFound
from selfhost_transport.store.entries import (
    Annotated,
    Appended,
    Created,
    Entry,
    PresenceChanged,
    Replaced,
    Summarised,
    unpack_entry,
)
from selfhost_transport.store.fields import SessionFields
from selfhost_transport.store.names import pair
from selfhost_transport.store.stores import Stores
from selfhost_transport.store.turn_store import TurnRecord, TurnStore
from selfhost_transport.wire.serial import Position

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class TurnLine:
    """An open turn. `lease_ms`: the rest of its lease; negative: it has expired; None: no worker has it."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    turn: str
    status: str
    owner: str
    agent: str
    attempts: int
    worker: str | None
    lease_ms: int | None


@dataclass(frozen=True, slots=True)
class EntryLine:
    """An entry of the live log. `names`: of the messages of a publish; `ref`: the message that it changes."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    position: str
    kind: str
    names: tuple[str, ...] = ()
    client_id: str | None = None
    ref: str | None = None
    data: str | None = None


@dataclass(frozen=True, slots=True)
class SessionReport:
    """A session at one moment. `queued`: turns that wait for others to end; `ready`: by agent, those in its queue.

    `ended`: the newest of the turns that have ended, oldest first.
    """

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    session: str
    bucket: str
    epoch: str
    head: str
    log_from: str
    turns: list[TurnLine]
    queued: list[str]
    ready: dict[str, int]
    ended: list[EndedLine]
    entries: list[EntryLine]


async def report_of(stores: Stores, session: str, ended: int, entries: int) -> SessionReport:
    """The state of a session now. Raises NotFound for one that was never used."""
    turns = stores.turns
    base = turns.keys.base_of(session)
    epoch, floor = await turns.redis.command(
        "HMGET", f"{base}s:{session}", SessionFields.EPOCH, SessionFields.FLOOR
    )
    if epoch is None:
        raise NotFound(
            f"the session {session!r} does not exist under the prefix {turns.keys.prefix!r}; "
            "without a name, `inspect` lists those there are"
        )
    head = await turns.redis.command("GET", f"{base}p:{session}")
    open_turns = await turns.active(session)
    return SessionReport(
        session=session,
        bucket=base,
        epoch=epoch.decode(),
        head=_text(head),
        log_from=_text(floor),
        turns=[await _turn_line(turns, base, session, record) for record in open_turns],
        queued=[_text(turn) for turn in await turns.redis.command("LRANGE", f"{base}w:{session}", 0, -1)],
        ready={
            record.agent: await turns.redis.command("XLEN", f"{base}q:{record.agent}")
            for record in open_turns
        },
        ended=await last_ended(stores.history, session, ended),
        entries=await _last_entries(turns, base, session, entries),
    )


async def _turn_line(turns: TurnStore, base: str, session: str, record: TurnRecord) -> TurnLine:
    expiry = await turns.redis.command("ZSCORE", f"{base}leases", pair(record.turn_id, session))
    return TurnLine(
        turn=record.turn_id,
        status=record.status,
        owner=record.owner or "(anonymous)",
        agent=record.agent,
        attempts=record.attempts,
        worker=record.worker,
        lease_ms=None if expiry is None else round(float(expiry) - time.time() * 1000),
    )


async def _last_entries(turns: TurnStore, base: str, session: str, count: int) -> list[EntryLine]:
    found = await turns.redis.command("XREVRANGE", f"{base}l:{session}", "+", "-", "COUNT", max(1, count))
    entries = [
        unpack_entry(Position.parse_id(item[0].decode()), item[1][1]) for item in reversed(found or [])
    ]
    return [_entry_line(entry) for entry in entries[-count:] if count > 0]


def _entry_line(entry: Entry) -> EntryLine:
    where = entry.position.stream_id
    match entry:
        case Created():
            names = tuple(message.name or "" for message in entry.messages)
            who = next((message.client_id for message in entry.messages if message.client_id), None)
            return EntryLine(where, "publish", names, who)
        case Appended():
            data = entry.data if isinstance(entry.data, str) else entry.data.hex()
            return EntryLine(where, "append", ref=str(entry.ref), data=data)
        case PresenceChanged():
            names = tuple(
                change.action.name.lower() for change in entry.presence if change.action is not None
            )
            return EntryLine(where, "presence", names, next((c.client_id for c in entry.presence), None))
        case Annotated() | Summarised():
            kind = "annotate" if isinstance(entry, Annotated) else "summary"
            return EntryLine(where, kind, ref=str(entry.ref))
        case Replaced():
            return EntryLine(where, entry.action.name.lower(), ref=str(entry.ref))


def _described(entry: EntryLine) -> str:
    what = [", ".join(entry.names)] if entry.names else []
    what += [f"by {entry.client_id or '(anonymous)'}"] if entry.kind in ("publish", "presence") else []
    what += [f"to {entry.ref}"] if entry.ref else []
    what += [_cut(entry.data)] if entry.data is not None else []
    return f"{entry.position}  {entry.kind:8} {' '.join(what)}"


def _described_end(turn: EndedLine) -> str:
    why = f"  by {turn.cancelled_by}" if turn.cancelled_by else ""
    why += f"  {turn.error_code}: {turn.error}" if turn.error_code is not None else ""
    return f"  {turn.turn}  {turn.reason}  owner {turn.owner}  agent {turn.agent}{why}"


def _cut(data: str) -> str:
    shown = repr(data)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


def report_text(report: SessionReport) -> str:
    """For people."""
    lines = [
        f"session {report.session}  bucket {report.bucket}  epoch {report.epoch}",
        f"head {report.head}  log from {report.log_from}",
        f"open turns: {len(report.turns)}",
    ]
    for turn in report.turns:
        lease = "no lease" if turn.lease_ms is None else f"lease {turn.lease_ms} ms"
        lines.append(
            f"  {turn.turn}  {turn.status}  owner {turn.owner}  agent {turn.agent}  attempts {turn.attempts}  "
            f"worker {turn.worker or '-'}  {lease}"
        )
    lines.append(f"waiting in the session: {', '.join(report.queued) or 'none'}")
    lines += [f"queue of {agent} in this bucket: {length}" for agent, length in report.ready.items()]
    lines += [f"last ended turns: {len(report.ended)}", *map(_described_end, report.ended)]
    entries = [f"  {_described(entry)}" for entry in report.entries] or [
        "  none: the live log covers only resume_window_s"
    ]
    return "\n".join([*lines, "last entries:", *entries])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else "0-0"
