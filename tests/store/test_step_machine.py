"""The same as `test_machine`, with processes that start turns by their id, work in steps, detach, adopt and die."""

from __future__ import annotations

import uuid

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import consumes, initialize, multiple, rule

from selfhost_transport.errors import LeaseLost, StepOpen, TurnEnded, TurnHeld, TurnStarted, TurnSuspended
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.turn_steps import Holding, StepMessages, StepOutcome, TurnHolder, TurnSteps
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.wire.message import Message
from tests.store.turn_machine import Turns
from tests.store.turns import SESSION

WINDOW_MS = 60_000
STEP_MESSAGES = StepMessages(
    start=Message(name="step-start"),
    cancelled=Message(name="step-cancelled"),
    failed=[Message(name="step-failed")],
    abandoned=Message(name="step-abandoned"),
)


class Steps(Turns):
    """Adds to the model: by which fence a turn was claimed or adopted, and its open step.

    A turn that is active and has no fence may be adopted.
    """

    @initialize()
    def start(self) -> None:
        super().start()
        self.steps = TurnSteps(self.connection, Keyspace(self.prefix, buckets=2))
        self.claimed: dict[str, int | str] = {}
        self.detached: dict[str, int | str] = {}
        self.step: dict[str, str] = {}

    def one_of_the_turns(self, number: int) -> str | None:
        turns = list(self.status)
        return turns[number % len(turns)] if turns else None

    def is_claimed(self, lease: Lease) -> bool:
        return self.holds(lease) and self.claimed.get(lease.turn_id) == lease.fence

    def held(self, holding: Holding) -> Lease:
        turn = holding.lease.turn_id
        self.status[turn] = "active"
        self.fence[turn] = self.claimed[turn] = holding.lease.fence
        self.step.pop(turn, None)
        return holding.lease

    def holder(self) -> TurnHolder:
        return TurnHolder("p", uuid.uuid4().hex, 60_000, WINDOW_MS)

    @rule(target=Turns.leases, number=st.integers(0, 100), adopts=st.booleans())
    def take_by_id(self, number: int, adopts: bool) -> object:
        turn = self.one_of_the_turns(number)
        if turn is None:
            return multiple()
        status = self.status[turn]
        call = self.steps.adopt if adopts else self.steps.claim
        is_free = status == "active" and turn not in self.fence
        try:
            holding = self.run(call(SESSION, turn, self.holder()))
        except TurnEnded:
            assert status in ("completed", "cancelled", "failed")
        except TurnSuspended:
            assert status == "suspended"
        except TurnHeld:
            assert adopts and status == "active" and not is_free
        except TurnStarted:
            assert not adopts and status == "active"
        else:
            if holding is None:
                assert status == "queued" or (adopts and status == "pending")
                return multiple()
            assert is_free if adopts else status == "pending"
            if not adopts:
                self.ready.remove(turn)
            return self.held(holding)
        return multiple()

    @rule(lease=Turns.leases)
    def detach(self, lease: Lease) -> None:
        turn = lease.turn_id
        try:
            self.run(self.steps.detach(lease, WINDOW_MS))
        except LeaseLost:
            assert not self.holds(lease)
        except StepOpen:
            assert self.holds(lease) and (turn in self.step or not self.is_claimed(lease))
        else:
            # Detaching twice is detaching once.
            assert (self.is_claimed(lease) and turn not in self.step) or self.detached[turn] == lease.fence
            if self.holds(lease):
                self.detached[turn] = self.fence.pop(turn)

    @rule(lease=Turns.leases)
    def start_step(self, lease: Lease) -> None:
        turn = lease.turn_id
        try:
            started = self.run(self.steps.start(lease, uuid.uuid4().hex, "s", STEP_MESSAGES))
        except LeaseLost:
            assert not self.holds(lease)
        except StepOpen:
            assert self.holds(lease) and (turn in self.step or not self.is_claimed(lease))
        else:
            assert self.is_claimed(lease) and turn not in self.step
            self.step[turn] = started.serial

    @rule(lease=Turns.leases)
    def end_step(self, lease: Lease) -> None:
        serial = self.step.get(lease.turn_id)
        if serial is None:
            return
        try:
            self.run(self.steps.end(lease, serial, StepOutcome.COMPLETE, Message(name="step-end")))
        except LeaseLost:
            assert not self.holds(lease)
        else:
            assert self.is_claimed(lease)
            del self.step[lease.turn_id]

    @rule(lease=consumes(Turns.leases))
    def hand_back(self, lease: Lease) -> None:
        """Also of a turn in someone's hands: it may be adopted then."""
        claimed, holds = self.is_claimed(lease), self.holds(lease)
        assert bool(self.run(self.turns.hand_back(self.bucket, lease))) == holds
        if not holds:
            return
        del self.fence[lease.turn_id]
        self.step.pop(lease.turn_id, None)
        if not claimed:
            self.status[lease.turn_id] = "pending"
            self.ready.append(lease.turn_id)

    @rule(number=st.integers(0, 100))
    def expire(self, number: int) -> None:
        """A holder dies, or no one adopts a turn in time."""
        turn = self.one_of_the_turns(number)
        if turn is None or self.status[turn] != "active":
            return
        fence = self.fence.get(turn)
        if fence is not None and self.claimed.get(turn) != fence:
            return
        leases = f"{self.turns.keys.base_of(SESSION)}leases"
        self.run(self._overdue(leases, f"{turn} {SESSION}"))
        _, _, what = self.run(self.turns.reap(self.bucket))
        assert what == ("failed" if fence is None else "adoptable")
        self.step.pop(turn, None)
        if fence is None:
            self.end_turn(turn, "failed")
        else:
            del self.fence[turn]

    async def _overdue(self, leases: str, member: str) -> None:
        await self.connection.command("ZADD", leases, "XX", 1, member)


def test_any_history_of_turns_and_steps(redis_server: EmbeddedRedis) -> None:
    Steps.url = redis_server.url
    limits = settings(
        max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
    Steps.TestCase.settings = limits
    Steps.TestCase().runTest()
