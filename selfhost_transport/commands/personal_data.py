"""`export SESSION` and `erase`: what a deployment holds of a session, and its end."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from selfhost_transport.commands.holdings import SessionHoldings
from selfhost_transport.commands.operating import Operations, PersonTraces
from selfhost_transport.commands.operator import Place
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.store.erasure import ErasedSession
from selfhost_transport.store.person_erasure import ErasedPerson

STDOUT: Final = "-"


def run_export_session(place: Place, session: str, to: str) -> None:
    """Write all there is of a session as lines of JSON to a new file (`-`: standard output). Raises NotFound, InvalidArgument."""
    count = _write(place, lambda at: at.lines(session), to)
    if to != STDOUT:
        print(f"{count} lines of session {session} are in {to}")


def run_export_person(place: Place, person: str, sessions: Sequence[str], to: str) -> None:
    """The same of a person, by client id, in these sessions, or in all. Raises InvalidArgument."""
    count = _write(place, lambda at: at.lines_of_person(person, sessions), to)
    if to != STDOUT:
        print(
            f"{count} lines of client {person} are in {to}"
            if count
            else f"there is nothing of client {person}"
        )


def run_erase_person(
    place: Place, person: str, sessions: Sequence[str], *, by: str, yes: bool, as_json: bool
) -> None:
    """Erase a person; without `yes`, print what there is. Raises InvalidArgument."""
    if not yes:
        found = place.do(lambda at: at.traces(person, sessions))
        print(
            json.dumps([dataclasses.asdict(one) for one in found]) if as_json else _traces_text(person, found)
        )
        return
    done = place.do(lambda at: at.erase_person(person, sessions, by))
    print(json.dumps(dataclasses.asdict(done)) if as_json else _erased_text(done))


def _traces_text(person: str, found: Sequence[PersonTraces]) -> str:
    lines = [
        f"{one.session}  {one.publishes} publish(es)  {'others use it, too' if one.shared else 'goes as a whole'}"
        for one in found
    ]
    return "\n".join(
        [*lines, f"{len(found)} session(s) of client {person}; nothing was erased: repeat with --yes"]
    )


def _erased_text(done: ErasedPerson) -> str:
    lines = [f"{session}  erased" for session in done.erased]
    lines += [f"{session}  {count} publish(es) taken out" for session, count in done.redacted.items()]
    return "\n".join(
        [
            *lines,
            f"client {done.client_id} is erased; {done.subscriptions} push subscription(s), {done.letters} letter(s)",
        ]
    )


def _write(place: Place, source: Callable[[Operations], AsyncIterator[dict[str, Any]]], to: str) -> int:
    """Write lines; how many there were."""

    async def write(at: Operations) -> int:
        count = 0
        lines = sys.stdout if to == STDOUT else None
        try:
            async for line in source(at):
                # Only now: where there is nothing, no file is left behind.
                lines = lines or _new_file(to)
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
        finally:
            if lines is not None and lines is not sys.stdout:
                lines.flush()
                os.fsync(lines.fileno())
                lines.close()
        return count

    return place.do(write)


def run_erase_session(place: Place, session: str, *, by: str, yes: bool, free: bool, as_json: bool) -> None:
    """Erase a session; without `yes`, print what there is. Raises NotFound without either."""

    async def work(at: Operations) -> SessionHoldings | ErasedSession:
        return await at.erase(session, by, free=free) if yes else await at.holdings(session)

    done = place.do(work)
    print(json.dumps(dataclasses.asdict(done)) if as_json else _text(done, free=free))


def _text(done: SessionHoldings | ErasedSession, *, free: bool) -> str:
    if isinstance(done, SessionHoldings):
        return (
            f"session {done.session} has {done.publishes} publish(es), {done.open_turns} open turn(s), "
            f"{done.members} member(s); nothing was erased: repeat with --yes"
        )
    lines = [
        f"session {done.session} is erased: {done.publishes} publish(es), {done.letters} letter(s); "
        f"{done.turns_cancelled} turn(s) were cancelled",
    ]
    if done.receipts_expire:
        lines.append(
            "receipts of sends, which have its name, expire within a day: this user of Redis may not SCAN"
        )
    lines.append("its name may be used again" if free else "nothing can be sent to its name for a day")
    return "\n".join(lines)


def _new_file(to: str) -> TextIO:
    try:
        return Path(to).open("x", encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(f"cannot write to {to}: {error.strerror}") from error
