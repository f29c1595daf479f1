"""Commands of operators: what they print. They work in Redis, or through a gateway (`--url`)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from selfhost_transport.commands.inspect import report_text
from selfhost_transport.commands.operating import CancelReport, Operations, StoreOperations, filter_of
from selfhost_transport.commands.stores import opened_stores
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET, Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command works: the Redis of the settings, or the gateway at `url`, with a key or token."""

    settings: Settings
    url: str | None = None
    key: str | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Operations]:
        """The operations there. Raises StoreUnavailable, InvalidArgument."""
        if self.url is not None:
            from selfhost_transport.commands.operating_http import HttpOperations

            async with HttpOperations(self.url, self.key or f"{DEV_KEY_NAME}:{DEV_KEY_SECRET}") as operations:
                yield operations
            return
        async with opened_stores(self.settings) as stores:
            yield StoreOperations(stores, scans=True)

    def do(self, work: Callable[[Operations], Awaitable[T]]) -> T:
        """Run one thing there. Raises what it raises."""

        async def run() -> T:
            async with self.opened() as operations:
                return await work(operations)

        return asyncio.run(run())


def run_list(place: Place, prefix: str, *, limit: int, as_json: bool) -> None:
    """Print the sessions whose names begin with `prefix`, those with the newest entries first."""
    found = place.do(lambda at: at.sessions(prefix))
    found.sort(key=lambda line: line.last_ms, reverse=True)
    if as_json:
        print(_json(found[:limit], indent=2))
        return
    for line in found[:limit]:
        last = _time(line.last_ms) if line.last_ms else "-"
        print(f"{last}  open turns {line.open}  waiting {line.queued}  {line.session}")
    more = f", the {limit} newest shown" if len(found) > limit else ""
    where = place.url or f"the prefix {place.settings.redis.prefix!r}"
    print(f"{len(found)} session(s) under {where}{more}")


def run_inspect(place: Place, session: str, *, ended: int, entries: int, as_json: bool) -> None:
    """Print the state of a session. Raises NotFound for one that was never used."""
    report = place.do(lambda at: at.report(session, ended, entries))
    print(json.dumps(dataclasses.asdict(report), indent=2) if as_json else report_text(report))


def run_cancel(
    place: Place,
    session: str,
    *,
    turn: str | None,
    client: str | None,
    everything: bool,
    by: str,
    force: bool = False,
    as_json: bool = False,
) -> None:
    """Cancel and print what matched; `force`: without asking the agents' hooks.

    Raises InvalidArgument unless exactly one filter is given.
    """
    chosen = filter_of(turn, client, everything)
    print(_cancelled(place.do(lambda at: at.cancel(session, chosen, by, force=force)), as_json=as_json))


def run_cancel_all(place: Place, prefix: str, *, by: str, force: bool, as_json: bool = False) -> None:
    """End every open turn of every session whose name begins with `prefix`, and print what was ended."""
    stop = place.do(lambda at: at.cancel_all(prefix, by, force=force))
    if as_json:
        print(json.dumps(dataclasses.asdict(stop)))
        return
    print(f"cancelled {stop.turns} turn(s) in {len(stop.sessions)} session(s)")
    for session, turns in stop.sessions.items():
        print(f"  {session}  {' '.join(turns)}")


def run_workers(place: Place, *, as_json: bool) -> None:
    """Print the workers that serve agents of the configuration."""
    found = place.do(lambda at: at.workers())
    if as_json:
        print(_json(found))
        return
    for one in found:
        print(f"{one.worker}  agents {', '.join(one.agents)}")
    if not found:
        print("no workers")


def run_drain(place: Place, worker: str) -> None:
    """Have a worker finish or hand over its turns, and end. Raises NotFound."""
    place.do(lambda at: at.drain(worker))
    print(f"{worker} is draining")


def run_dead(place: Place, *, as_json: bool) -> None:
    """Print the turns whose workers were all lost."""
    letters = place.do(lambda at: at.dead())
    if as_json:
        print(_json(letters))
        return
    for letter in letters:
        print(
            f"{letter.letter_id}  {_time(letter.time_ms, 'T')}  session={letter.session} turn={letter.turn_id} "
            f"attempts={letter.attempts} worker={letter.worker}"
        )
    if not letters:
        print("no dead letters")


def run_requeue(place: Place, letter: str) -> None:
    """Send one of those again."""
    again = place.do(lambda at: at.requeue(letter))
    print(f"turn {again.turn_id} is {again.status}")


def run_undelivered(place: Place, sink: str, *, as_json: bool) -> None:
    """Print what a webhook, or PUSH, has given up."""
    found = place.do(lambda at: at.undelivered(sink))
    if as_json:
        print(_json(found))
        return
    for one in found:
        who = f" client={one.client_id}" if one.client_id is not None else ""
        print(
            f"{one.letter_id}  {_time(one.time_ms, 'T')}  {one.event}  session={one.session} turn={one.turn_id}{who}  "
            f"{one.reason}"
        )
    if not found:
        print("nothing was given up")


def run_deliver_again(place: Place, sink: str, letter: str | None, *, everything: bool) -> None:
    """Have one of those, or all, delivered again. Raises NotFound, InvalidArgument."""
    if (letter is None) != everything:
        raise InvalidArgument("name one letter, or give --all")

    async def again(at: Operations) -> int:
        letters = [letter] if letter is not None else [one.letter_id for one in await at.undelivered(sink)]
        for one in letters:
            await at.deliver_again(sink, one)
        return len(letters)

    print(f"{place.do(again)} delivered again")


def _cancelled(report: CancelReport, *, as_json: bool) -> str:
    if as_json:
        names = {"already_ended": "alreadyEnded"}
        return json.dumps(
            {names.get(name, name): value for name, value in dataclasses.asdict(report).items()}
        )
    ended = [turn for turn in report.matched if turn not in report.asked]
    lines = [f"cancelled {len(ended)} turn(s) at {report.position}"]
    lines += [f"  cancelled          {turn}" for turn in ended]
    lines += [f"  decided by its agent   {turn}" for turn in report.asked]
    lines += [f"  already ended      {turn}" for turn in report.already_ended]
    return "\n".join(lines)


def _json(lines: Sequence[object], indent: int | None = None) -> str:
    return json.dumps([dataclasses.asdict(line) for line in lines], indent=indent)  # type: ignore[call-overload]


def _time(ms: int, separator: str = " ") -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(separator, "seconds")
