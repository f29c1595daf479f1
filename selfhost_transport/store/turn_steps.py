"""Turns that processes start by their id, work on in steps, and hand to each other (protocol sections 8.3 and 8.4).

The same leases, fences and entries as a worker's turns: what P2, P3 and P6 promise holds for these too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from selfhost_transport.errors import (
    NotFound,
    StepOpen,
    TransportError,
    TurnEnded,
    TurnHeld,
    TurnStarted,
    TurnSuspended,
)
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import pack_created
from selfhost_transport.store.fields import QueueFields
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position


class StepOutcome(StrEnum):
    """How the last step of a turn went."""

    NONE = ""
    OPEN = "open"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LastStep:
    """The step that was started last. `count`: step ids the turn has used."""

    step_id: str
    outcome: StepOutcome
    start_serial: str
    count: int

    @property
    def is_unfinished(self) -> bool:
        """Whether the same id should be started again."""
        return self.outcome in (StepOutcome.OPEN, StepOutcome.FAILED)


@dataclass(frozen=True, slots=True)
class Holding:
    """A turn that was taken into a process's hands; its lease names no step."""

    lease: Lease
    last_step: LastStep


@dataclass(frozen=True, slots=True)
class TurnHolder:
    """The process that requests a turn. `request` names the call, so that it may be repeated; times in ms.

    The lease is to be renewed. `window_ms`: how long a turn without a holder may be adopted before it ends `error`.
    """

    name: str
    request: str
    lease_ms: int
    window_ms: int


@dataclass(frozen=True, slots=True)
class StepMessages:
    """A step's start, and what scripts write to end it: for a cancelled turn, a lost one, and a lost holder."""

    start: Message
    cancelled: Message
    failed: Sequence[Message]
    abandoned: Message


@dataclass(frozen=True, slots=True)
class StepStarted:
    """`attempt`: 1 for an id that the turn has not used before."""

    serial: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A turn that waits for its agent. `item`: where it stands in the queue."""

    session: str
    turn_id: str
    item: str


class TurnSteps:
    """Raises StoreUnavailable and StoreFull besides what each method names. Every call may be repeated."""

    def __init__(self, redis: RedisConnection, keys: Keyspace) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = SessionScripts(redis, keys)

    async def claim(
        self, session: str, turn_id: str, holder: TurnHolder, *, retry_s: float = 0.0
    ) -> Holding | None:
        """Start a turn that waits for its agent; None while it waits by policy, or is not known yet.

        Raises TurnStarted, TurnSuspended, TurnEnded.
        """
        reply = await self._take_hold("claim", session, turn_id, holder, retry_s)
        return None if reply[0] in (b"unknown", b"queued") else _held(session, turn_id, reply)

    async def adopt(
        self, session: str, turn_id: str, holder: TurnHolder, *, retry_s: float = 0.0
    ) -> Holding | None:
        """Take over a turn without a holder; None for one that was not started yet.

        Raises TurnHeld, TurnSuspended, TurnEnded.
        """
        reply = await self._take_hold("adopt", session, turn_id, holder, retry_s)
        waits = reply[0] in (b"unknown", b"queued", b"pending")
        return None if waits else _held(session, turn_id, reply)

    async def detach(self, lease: Lease, window_ms: int, *, retry_s: float = 0.0) -> None:
        """Give a turn up, to be adopted within `window_ms`; writes nothing. Raises LeaseLost, StepOpen."""
        reply = await self._scripts.run_held("detach", lease, retry_s=retry_s, window_ms=window_ms)
        _check_open(lease, reply)

    async def start(
        self, lease: Lease, request: str, step_id: str, messages: StepMessages, *, retry_s: float = 0.0
    ) -> StepStarted:
        """Open a step; the id of an earlier one replaces its output. Raises LeaseLost, StepOpen."""
        reply = await self._scripts.run_held(
            "step_start", lease, retry_s=retry_s, request=request, step=step_id,
            entry=pack_created([messages.start]), when_cancelled=pack_created([messages.cancelled]),
            when_lost=pack_created(messages.failed), when_abandoned=pack_created([messages.abandoned]),
        )  # fmt: skip
        _check_open(lease, reply)
        return StepStarted(reply[1].decode(), int(reply[2]))

    async def end(
        self, lease: Lease, start_serial: str, outcome: StepOutcome, message: Message, *, retry_s: float = 0.0
    ) -> None:
        """End the step with that start; its open messages are closed as cancelled. Raises LeaseLost."""
        await self._scripts.run_held(
            "step_end", lease, retry_s=retry_s, serial=start_serial, outcome=outcome,
            entry=pack_created([message]),
        )  # fmt: skip

    async def turn_of_event(self, session: str, event_id: str) -> str:
        """The turn that an input event started. Raises NotFound."""
        turn = await self._redis.command("GET", self._keys.of_item("e", event_id, session))
        if turn is None:
            raise NotFound(f"no turn of session {session!r} was started by the input event {event_id!r}")
        return str(turn.decode())

    async def waiting(self, bucket: int, agent: str, after: str, count: int = 100) -> list[Arrival]:
        """Turns of a bucket that wait for an agent, oldest first, from behind the item `after` (`0` at first)."""
        queue = f"{self._keys.base(bucket)}q:{agent}"
        items = await self._redis.command("XRANGE", queue, f"({after}", "+", "COUNT", count)
        found = []
        for item, fields in items:
            named = dict(zip((name.decode() for name in fields[::2]), fields[1::2], strict=True))
            found.append(
                Arrival(named[QueueFields.SESSION].decode(), named[QueueFields.TURN].decode(), item.decode())
            )
        return found

    async def _take_hold(
        self, script: str, session: str, turn_id: str, holder: TurnHolder, retry_s: float
    ) -> list[Any]:
        reply: list[Any] = await self._scripts.run(
            script, session, turn=turn_id, holder=holder.name, request=holder.request,
            lease_ms=holder.lease_ms, window_ms=holder.window_ms, retry_s=retry_s,
        )  # fmt: skip
        return reply


def _check_open(lease: Lease, reply: Sequence[Any]) -> None:
    if reply[0] == b"open":
        step = reply[1].decode()
        raise StepOpen(
            f"the step {step!r} of turn {lease.turn_id} is still open; one is open at a time",
            detail={"turn": lease.turn_id, "step": step},
        )


def _held(session: str, turn_id: str, reply: Sequence[Any]) -> Holding:
    if reply[0] != b"held":
        raise _refusal(turn_id, *(part.decode() for part in reply))
    lease = Lease(
        session=session,
        turn_id=turn_id,
        fence=int(reply[1]),
        attempt=int(reply[2]),
        epoch=reply[3].decode(),
        input_position=Position.parse_id(reply[4].decode()),
        context=reply[5],
        max_attempts=int(reply[6]),
        step_start_serial="",
    )
    step_id, outcome, serial = (part.decode() for part in reply[7:10])
    return Holding(lease, LastStep(step_id, StepOutcome(outcome), serial, int(reply[10])))


def _refusal(turn_id: str, why: str, what: str = "") -> TransportError:
    """Why a turn could not be taken; each reason is a class of its own (DUR-5)."""
    detail = {"turn": turn_id, "status": what or why}
    match why:
        case "suspended":
            return TurnSuspended(
                f"turn {turn_id} waits for people; create it again once they have answered", detail=detail
            )
        case "ended":
            return TurnEnded(f"turn {turn_id} has ended ({what})", detail=detail)
        case "started":
            return TurnStarted(
                f"turn {turn_id} was started before; adopt it instead", detail={"turn": turn_id}
            )
        case _:
            return TurnHeld(
                f"turn {turn_id} is held by {what}; try again once it is detached or its lease has expired",
                detail={"turn": turn_id, "holder": what},
            )
