"""What operators look at and do, in Redis: the gateway's HTTP API and the commands have it from here, so both say the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, ClassVar, Final, Protocol

from pydantic import ConfigDict

from selfhost_transport.commands.cancel_all import active_sessions, cancel_everywhere
from selfhost_transport.commands.ended import WIRE
from selfhost_transport.commands.holdings import SessionHoldings, SessionLines, holdings_of, lines_of_person
from selfhost_transport.commands.inspect import SessionReport, report_of
from selfhost_transport.commands.session_list import SessionLine, session_line, sessions_beginning
from selfhost_transport.errors import InvalidArgument, NotFound
from selfhost_transport.store.dead_letters import DeadLetter
from selfhost_transport.store.ended_turns import Undelivered
from selfhost_transport.store.erasure import KEPT_OUT_MS, ErasedSession
from selfhost_transport.store.live_sessions import LiveSessions, RegisteredWorker
from selfhost_transport.store.person_erasure import ErasedPerson
from selfhost_transport.store.push import UndeliveredPush
from selfhost_transport.store.stores import Stores
from selfhost_transport.store.turn_store import CancelFilter, Scope
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import format_position

PUSH: Final = "(push)"
"""Where pushes are given up, beside the webhooks by their names: no webhook is called so."""
_HEADERS: Final = {Scope.TURN: h.RUN_ID, Scope.OWNER: "cancel-client-id", Scope.ALL: "cancel-all"}
_DELIVERED_FOR: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CancelReport:
    """What a cancel of an operator did. `asked`: turns whose agents decide."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    position: str
    matched: list[str]
    asked: list[str]
    already_ended: list[str]


@dataclass(frozen=True, slots=True)
class EmergencyStop:
    """Turns that were ended, by session."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    by: str
    prefix: str
    sessions: dict[str, list[str]]
    turns: int


@dataclass(frozen=True, slots=True)
class UndeliveredLine:
    """An event that was given up, and why. `client_id`: of a push, who it was for."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    letter_id: str
    event: str
    session: str
    turn_id: str
    time_ms: int
    reason: str
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class Requeued:
    """A turn that was sent again."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    turn_id: str
    status: str


@dataclass(frozen=True, slots=True)
class PersonTraces:
    """A session with something of a person: how many publishes, and whether others use it, too."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    session: str
    publishes: int
    shared: bool


class Operations(Protocol):
    """What can be done to a deployment, in its Redis or through a gateway."""

    async def sessions(self, prefix: str) -> list[SessionLine]:
        """Those whose names begin with `prefix`."""
        ...

    async def report(self, session: str, ended: int, entries: int) -> SessionReport:
        """The state of one. Raises NotFound."""
        ...

    async def cancel(self, session: str, chosen: CancelFilter, by: str, *, force: bool) -> CancelReport:
        """End turns of a session."""
        ...

    async def cancel_all(self, prefix: str, by: str, *, force: bool) -> EmergencyStop:
        """End every turn of every session whose name begins with `prefix`."""
        ...

    async def workers(self) -> list[RegisteredWorker]:
        """Those that run."""
        ...

    async def drain(self, worker: str) -> None:
        """Have one end. Raises NotFound."""
        ...

    async def dead(self) -> list[DeadLetter]:
        """Turns whose workers were all lost."""
        ...

    async def requeue(self, letter_id: str) -> Requeued:
        """Send one of those again. Raises NotFound."""
        ...

    async def undelivered(self, sink: str) -> list[UndeliveredLine]:
        """What a webhook, or PUSH, has given up. Raises NotFound."""
        ...

    async def deliver_again(self, sink: str, letter_id: str) -> None:
        """Have one of those delivered again. Raises NotFound."""
        ...

    def lines(self, session: str) -> AsyncIterator[dict[str, Any]]:
        """Everything that there is of a session. Raises NotFound."""
        ...

    async def holdings(self, session: str) -> SessionHoldings:
        """How much that is. Raises NotFound."""
        ...

    def lines_of_person(self, person: str, sessions: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        """What these sessions, or all, have of a client id."""
        ...

    async def traces(self, person: str, sessions: Sequence[str]) -> list[PersonTraces]:
        """How much that is, by session."""
        ...

    async def erase_person(self, person: str, sessions: Sequence[str], by: str) -> ErasedPerson:
        """Erase it."""
        ...

    async def erase(self, session: str, by: str, *, free: bool) -> ErasedSession:
        """Erase it; `free`: its name may be used at once. Nothing there is no error."""
        ...


class StoreOperations:
    """Operations in Redis itself. Raises StoreUnavailable.

    `scans`: whether all keys may be walked, as a command may, with a user of Redis of its own; a gateway looks only at the
    sessions that are in use.
    """

    def __init__(self, stores: Stores, *, scans: bool) -> None:
        self._stores = stores
        self._scans = scans

    async def sessions(self, prefix: str) -> list[SessionLine]:
        """All there are, or those in use."""
        turns = self._stores.turns
        if self._scans:
            return [line async for line in sessions_beginning(turns, prefix)]
        names = await self._live.names(self._agents, prefix)
        return list(await asyncio.gather(*(session_line(turns, name) for name in names)))

    async def report(self, session: str, ended: int, entries: int) -> SessionReport:
        """The state of a session."""
        return await report_of(self._stores, session, ended, entries)

    async def cancel(self, session: str, chosen: CancelFilter, by: str, *, force: bool) -> CancelReport:
        """One cancel; `force`: without asking the agents' hooks."""
        extras = h.make_extras({_HEADERS[chosen.scope]: chosen.value})
        message = Message(name=h.AI_CANCEL, client_id=by, extras=extras)
        reply = await self._stores.turns.cancels.cancel(session, chosen, message, early=False, force=force)
        position = format_position(reply.position, reply.epoch)
        return CancelReport(position, list(reply.matched), list(reply.asked), list(reply.already_ended))

    async def cancel_all(self, prefix: str, by: str, *, force: bool) -> EmergencyStop:
        """A cancel in each session."""
        turns = self._stores.turns
        if self._scans:
            sessions = sorted(await active_sessions(turns, prefix))
        else:
            sessions = [line.session for line in await self.sessions(prefix) if line.open]
        replies = await cancel_everywhere(turns, sessions, prefix, by, force=force)
        ended = {session: list(reply.matched) for session, reply in replies.items()}
        return EmergencyStop(by, prefix, ended, sum(map(len, ended.values())))

    async def workers(self) -> list[RegisteredWorker]:
        """Those that serve agents of the configuration."""
        return await self._live.workers(self._agents)

    async def drain(self, worker: str) -> None:
        """Ask one to end: its turns are finished or handed over."""
        if worker not in {one.worker for one in await self.workers()}:
            raise NotFound(f"there is no worker {worker!r}")
        await self._live.drain(worker)

    async def dead(self) -> list[DeadLetter]:
        """Oldest first."""
        return await self._stores.dead_letters.all()

    async def requeue(self, letter_id: str) -> Requeued:
        """Its message is sent again; twice is once."""
        accepted = await self._stores.dead_letters.requeue(letter_id)
        return Requeued(accepted.turn_id, accepted.status)

    async def undelivered(self, sink: str) -> list[UndeliveredLine]:
        """Oldest first."""
        if sink == PUSH:
            return [_of_push(one) for one in await self._stores.push.buried()]
        return [_of_webhook(one) for one in await self._stores.ended_turns(self._exporter(sink)).buried()]

    async def deliver_again(self, sink: str, letter_id: str) -> None:
        """After what waits."""
        if sink == PUSH:
            keep_ms = self._stores.settings.push.ttl // timedelta(milliseconds=1)
            await self._stores.push.requeue(letter_id, keep_ms)
        else:
            await self._stores.ended_turns(self._exporter(sink)).requeue(letter_id)

    async def lines(self, session: str) -> AsyncIterator[dict[str, Any]]:
        """See holdings.py."""
        async for line in SessionLines(self._stores, session).all():
            yield line

    async def holdings(self, session: str) -> SessionHoldings:
        """See holdings.py."""
        return await holdings_of(self._stores, session)

    async def lines_of_person(self, person: str, sessions: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        """See holdings.py."""
        async for line in lines_of_person(self._stores, person, await self._meant(sessions)):
            yield line

    async def traces(self, person: str, sessions: Sequence[str]) -> list[PersonTraces]:
        """See store/person_erasure.py."""
        erasure = self._stores.person_erasure
        found = [(session, await erasure.traces(session, person)) for session in await self._meant(sessions)]
        return [
            PersonTraces(session, len(one.publishes), one.others) for session, one in found if one.publishes
        ]

    async def erase_person(self, person: str, sessions: Sequence[str], by: str) -> ErasedPerson:
        """See store/person_erasure.py."""
        return await self._stores.person_erasure.erase(person, await self._meant(sessions), by)

    async def _meant(self, sessions: Sequence[str]) -> Sequence[str]:
        """Those that are named, or all. Raises InvalidArgument where all cannot be found."""
        if sessions:
            return sessions
        if not self._scans:
            raise InvalidArgument(
                "a gateway does not look through all sessions: name those of the person, or work in Redis"
            )
        return await self._stores.person_erasure.all_sessions()

    async def erase(self, session: str, by: str, *, free: bool) -> ErasedSession:
        """See store/erasure.py."""
        return await self._stores.erasure.erase(session, by, kept_out_ms=0 if free else KEPT_OUT_MS)

    def _exporter(self, sink: str) -> str:
        known = [rule.name for rule in self._stores.settings.webhooks]
        if sink not in known:
            raise NotFound(f"there is no webhook {sink!r}; configured: {', '.join(known) or 'none'}")
        return f"webhook.{sink}"

    @property
    def _live(self) -> LiveSessions:
        return LiveSessions(self._stores.redis, self._stores.keys)

    @property
    def _agents(self) -> set[str]:
        return {rule.agent for rule in self._stores.settings.namespaces if rule.agent is not None}


def filter_of(turn: str | None, client: str | None, everything: bool) -> CancelFilter:
    """Which turns an operator names. Raises InvalidArgument unless exactly one thing is given."""
    given: Sequence[tuple[Scope, str | None]] = (
        (Scope.TURN, turn),
        (Scope.OWNER, client),
        (Scope.ALL, "true" if everything else None),
    )
    chosen = [CancelFilter(scope, value) for scope, value in given if value is not None]
    if len(chosen) != 1:
        raise InvalidArgument("name what to cancel by exactly one of --turn ID, --client ID, --all")
    return chosen[0]


def _of_webhook(one: Undelivered) -> UndeliveredLine:
    ended = one.ended
    return UndeliveredLine(
        one.letter_id, ended.event, ended.session, ended.turn_id, ended.last.ms, one.reason
    )


def _of_push(one: UndeliveredPush) -> UndeliveredLine:
    said: dict[str, Any] = one.content
    event = str(said["type"]).removeprefix("turn.")
    return UndeliveredLine(
        one.letter_id, event, said["session"] or "", said["turnId"], one.time_ms, one.reason, one.person
    )


def as_dicts(lines: Sequence[Any]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [asdict(line) for line in lines]
