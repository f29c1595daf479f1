"""Random commands on turns, against a model of what must be."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from typing import Any, ClassVar

import redis
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from selfhost_transport.errors import Busy, Conflict, LeaseLost, TurnEnded
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import Created
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_inputs import TurnInputs
from selfhost_transport.store.turn_operations import CreateMessage
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_store import CancelFilter, Lease, Policy, Scope, TurnStore
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position
from tests.leaks import unowned_keys
from tests.store.continuations import continuation
from tests.store.turns import CANCEL, SESSION, request

TERMINALS = {"run-end", "run-cancelled", "run-lost", "run-merged"}


OPEN = ("pending", "queued", "active", "suspended")


class Turns(RuleBasedStateMachine):
    """The model: the status of each turn, who may write for it, and the order in which turns wait."""

    url: ClassVar[str]
    leases = Bundle("leases")

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.prefix = f"m{uuid.uuid4().hex[:12]}"
        keys = Keyspace(self.prefix, buckets=2)
        self.bucket = bucket_of(SESSION, keys.buckets)
        self.connection = self.run(self._connect())
        self.turns = TurnStore(self.connection, keys)
        self.inputs = TurnInputs(self.connection, keys)
        self.pauses = TurnPauses(self.connection, keys)
        self.sessions = SessionStore(self.connection, keys)
        self.status: dict[str, str] = {}
        self.owner: dict[str, str] = {}
        self.fence: dict[str, int | str] = {}
        self.ready: list[str] = []
        self.waiting: list[str] = []
        self.sealed: dict[str, Position] = {}
        self.answered: set[str] = set()
        self.sequence = 0

    async def _connect(self) -> RedisConnection:
        return RedisConnection(self.url)

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(step)

    def teardown(self) -> None:
        self.run(self.connection.close())
        self.loop.close()
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            assert not unowned_keys(client, self.prefix)
            client.delete(*client.scan_iter(f"{self.prefix}*"), "none")

    def running(self) -> int:
        return sum(status in ("pending", "active") for status in self.status.values())

    def end_turn(self, turn: str, status: str) -> None:
        self.status[turn] = status
        self.fence.pop(turn, None)
        for line in (self.ready, self.waiting):
            if turn in line:
                line.remove(turn)
        self.start_waiting()

    def start_waiting(self) -> None:
        while self.waiting and self.running() < 1:
            turn = self.waiting.pop(0)
            self.status[turn] = "pending"
            self.ready.append(turn)

    @rule(
        owner=st.sampled_from(["alice", "bob"]),
        policy=st.sampled_from([Policy.CONCURRENT, Policy.QUEUE, Policy.REJECT, Policy.INTERRUPT]),
    )
    def submit(self, owner: str, policy: Policy) -> None:
        turn = f"t{len(self.status)}"
        busy = self.running() + len(self.waiting) > 0
        sent = request(turn, owner=owner, policy=policy, interrupts=CancelFilter(Scope.OWNER, owner))
        try:
            accepted = self.run(self.turns.submit(sent))
        except Busy:
            assert policy is Policy.REJECT and busy
            return
        assert not (policy is Policy.REJECT and busy)
        if policy is Policy.INTERRUPT:
            mine = {
                other
                for other, status in self.status.items()
                if status in OPEN and self.owner[other] == owner
            }
            assert set(accepted.interrupted) == mine
            # All end before any waiting turn may start: the new one is running by then.
            for other in sorted(mine):
                self.end_turn(other, "cancelled")
        queued = policy is Policy.QUEUE and busy
        assert accepted.status == ("queued" if queued else "pending")
        self.owner[turn], self.status[turn] = owner, accepted.status
        (self.waiting if queued else self.ready).append(turn)

    @rule(target=leases)
    def take(self) -> Any:
        lease: Lease | None = self.run(self.turns.take(self.bucket, "a", "w", 60_000))
        if lease is None:
            assert not self.ready
            return multiple()
        assert lease.turn_id == self.ready.pop(0)
        self.status[lease.turn_id], self.fence[lease.turn_id] = "active", lease.fence
        return lease

    def holds(self, lease: Lease) -> bool:
        return self.fence.get(lease.turn_id) == lease.fence

    @rule(lease=leases)
    def write(self, lease: Lease) -> None:
        self.sequence += 1
        content = [CreateMessage(Message(name="content", data=lease.turn_id))]
        try:
            self.run(self.turns.write(lease, self.sequence, content))
        except LeaseLost:
            assert not self.holds(lease)
        else:
            assert self.holds(lease)

    @rule(lease=leases)
    def end(self, lease: Lease) -> None:
        end = [CreateMessage(Message(name="run-end", data=lease.turn_id))]
        held = self.holds(lease)
        try:
            self.run(self.turns.end(lease, "completed", end))
        except LeaseLost:
            assert not held
        else:
            assert held or self.status[lease.turn_id] == "completed"  # a repeated end is answered again
            if held:
                self.end_turn(lease.turn_id, "completed")

    @rule(lease=consumes(leases))
    def hand_back(self, lease: Lease) -> None:
        returned = self.run(self.turns.hand_back(self.bucket, lease))
        assert bool(returned) == self.holds(lease)
        if returned:
            self.fence.pop(lease.turn_id)
            self.status[lease.turn_id] = "pending"
            self.ready.append(lease.turn_id)

    @rule(lease=leases)
    def suspend(self, lease: Lease) -> None:
        if not self.holds(lease):
            return
        call = f"result:{lease.turn_id}:{lease.fence}"
        waits = self.run(self.pauses.suspend(lease, [call], [CreateMessage(Message(name="suspend"))]))
        assert waits == (call not in self.answered)
        self.status[lease.turn_id] = "suspended" if waits else "pending"
        self.fence.pop(lease.turn_id)
        if waits:
            self.start_waiting()
        else:
            self.ready.append(lease.turn_id)

    @rule(lease=leases)
    def answer(self, lease: Lease) -> None:
        turn, call = lease.turn_id, f"result:{lease.turn_id}:{lease.fence}"
        status = self.status[turn]
        try:
            resumption = continuation(turn=turn)
            answered = self.run(self.inputs.answer(SESSION, turn, [Message(name="answer")], call, resumption))
        except TurnEnded:
            assert status not in OPEN and call not in self.answered
        except Conflict:
            # Also when the turn has ended since: the loser learns that, and not that he was late.
            assert call in self.answered
        else:
            assert status in OPEN and call not in self.answered
            self.answered.add(call)
            if status == "suspended" and answered.status == "pending":
                self.status[turn] = "pending"
                self.ready.append(turn)

    @rule(scope=st.sampled_from([Scope.OWNER, Scope.ALL]), owner=st.sampled_from(["alice", "bob"]))
    def cancel(self, scope: Scope, owner: str) -> None:
        expected = sorted(
            turn
            for turn, status in self.status.items()
            if status in OPEN and (scope is Scope.ALL or self.owner[turn] == owner)
        )
        cancelled = self.run(self.turns.cancels.cancel(SESSION, CancelFilter(scope, owner), CANCEL))
        assert list(cancelled.matched) == expected
        for turn in expected:
            self.end_turn(turn, "cancelled")
            self.sealed[turn] = cancelled.position

    @invariant()
    def what_redis_knows_is_what_happened(self) -> None:
        records = self.run(self.turns.active(SESSION))
        assert {record.turn_id: record.status for record in records} == {
            turn: status for turn, status in self.status.items() if status in OPEN
        }
        assert self.run(self.inputs.waiting(SESSION)) == self.waiting

    @invariant()
    def terminals_and_seals_hold(self) -> None:
        entries = self.run(self.sessions.read_after(SESSION, Position.ZERO, limit=100_000))
        ended: dict[str, int] = {}
        for entry in entries:
            assert isinstance(entry, Created)
            for message in entry.messages:
                if message.name in TERMINALS:
                    turn = str(message.data or (message.extras or {})["ai"]["transport"]["turn"])
                    ended[turn] = ended.get(turn, 0) + 1
                elif message.name == "content":
                    seal = self.sealed.get(str(message.data))
                    assert seal is None or entry.position < seal  # P2
        assert ended == {turn: 1 for turn, status in self.status.items() if status not in OPEN}  # P3
