"""Turns in Redis: accepted, taken, written, cancelled, ended, reaped. Each step is one script."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selfhost_transport.accelerator import append_command
from selfhost_transport.errors import ServiceError
from selfhost_transport.redis_io.calls import ReplyReceiver
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.prepared_call import PreparedCall
from selfhost_transport.store import scripts
from selfhost_transport.store.entries import pack_created
from selfhost_transport.store.fields import TurnFields
from selfhost_transport.store.keys import WORKER_GROUP, Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.store.turn_cancels import TurnCancels
from selfhost_transport.store.turn_operations import OpenText, WriteOperation, packed_operations
from selfhost_transport.store.turn_records import (
    Accepted,
    Cancelled,
    ClosingMessages,
    Lease,
    TurnRecord,
    TurnRequest,
)
from selfhost_transport.store.turn_refusals import lease_lost, submit_refusal
from selfhost_transport.turns.commands import CancelFilter, Policy, Scope
from selfhost_transport.wire.serial import Position, new_epoch

__all__ = [
    "GAP",
    "LOST",
    "Accepted",
    "CancelFilter",
    "Cancelled",
    "ClosingMessages",
    "Lease",
    "Policy",
    "Scope",
    "TurnRecord",
    "TurnRequest",
    "TurnStore",
    "lease_lost",
]

LOST, GAP = b"lost", b"gap"
"""Replies to an append that was not written: the turn may no longer be written; an earlier append is missing."""

_RECORD = (
    TurnFields.STATUS, TurnFields.AGENT, TurnFields.OWNER, TurnFields.INPUT, TurnFields.ATTEMPTS, TurnFields.HANDED_BACK,
    TurnFields.WORKER, TurnFields.TERMINAL_POSITION, TurnFields.CANCEL_POSITION,
)  # fmt: skip


class TurnStore:
    """The turns of one deployment. Raises StoreUnavailable and StoreFull besides what each method names."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, options: StoreOptions | None = None) -> None:
        self.redis = redis
        self.keys = keys
        self.options = options or StoreOptions()
        self._scripts = SessionScripts(redis, keys)
        self.cancels = TurnCancels(self._scripts, self.options)

    async def submit(self, request: TurnRequest, *, may_burst: bool = True) -> Accepted:
        """Accept a send. Raises Conflict (id used with another body), Busy (policy reject), RateLimited (queue full,
        too many open turns), Overloaded (too many turns wait for a worker), CapabilityError (it would interrupt a turn
        that the sender may not end).

        `may_burst`: it may wait as long as a turn of a burst may.
        """
        reply = await self._submit(request, may_burst)
        refused = submit_refusal(request, reply)
        if refused is not None:
            raise refused
        accepted = _accepted(request, reply)
        interrupts = request.policy is Policy.INTERRUPT
        if accepted.repeated:
            # The process that ran it may have died before it was complete.
            if interrupts:
                await self.cancels.interrupt_rest(request, accepted.position)
            return accepted
        cursor, cancelled_at, marked = reply[6], reply[7], reply[8]
        await self.cancels.close_marked(request.session, reply[9 : 9 + marked])
        if not cursor:
            return accepted
        rest = await self.cancels.interrupt_rest(request, Position.parse_id(cancelled_at.decode()), cursor)
        left_over = [turn.decode() for turn in rest]
        return replace(accepted, interrupted=tuple(sorted([*accepted.interrupted, *left_over])))

    async def take(
        self,
        bucket: int,
        agent: str,
        worker: str,
        lease_ms: int,
        *,
        max_attempts: int | None = None,
        on_crash: str = "",
        hook_grace_ms: int = 0,
        hook_default: str = "allow",
        spare: bool = True,
    ) -> Lease | None:
        """The next turn of a bucket's queue for an agent, or None. Writes the entries that open the attempt.

        A worker that finds none, or with `spare` takes the last one, is noted as idle: the next turn may call it alone.
        `spare`: it has room for another turn after this one.

        `max_attempts` and `on_crash`, where given, replace those of the send: the agent has declared its own.
        With `hook_grace_ms` the agent is asked about a cancel; undecided for that long, it counts as `hook_default`
        (`allow` or `deny`).
        """
        base = self.keys.base(bucket)
        reply = await self.redis.call(
            *scripts.call(
                "take", queue=f"{base}q:{agent}", leases=f"{base}leases", base=base, group=WORKER_GROUP,
                worker=worker, lease_ms=lease_ms, spare=int(spare), max_attempts=max_attempts or "",
                on_crash=on_crash, hook_grace=hook_grace_ms or "", hook_default=hook_default,
            )
        )  # fmt: skip
        return _taken(reply) if reply is not None else None

    async def call_again(self, bucket: int, agent: str) -> int:
        """Call other workers for the turns that wait in a bucket's queue; how many wait."""
        base = self.keys.base(bucket)
        call = scripts.call("call_again", queue=f"{base}q:{agent}", base=base, agent=agent)
        waiting: int = await self.redis.call(*call)
        return waiting

    async def write(
        self, lease: Lease, sequence: int, operations: Sequence[WriteOperation], *, retry_s: float = 0.0
    ) -> list[Position]:
        """Write messages of a turn. A repeated `sequence` is answered with the first result. Raises LeaseLost."""
        reply = await self._scripts.run_held(
            "write", lease, packed_operations(operations), sequence=sequence, count=len(operations),
            retry_s=retry_s,
        )  # fmt: skip
        return [Position.parse_id(position.decode()) for position in reply[1:]]

    def append(
        self, lease: Lease, text: OpenText, chunk: str, *, retry_s: float = 0.0
    ) -> asyncio.Future[Any]:
        """Start writing a chunk; check the awaited reply with `check_append`. Chunks leave in call order."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.send_append(lease, text, chunk, reply, retry_s)
        return reply

    def send_append(
        self, lease: Lease, text: OpenText, chunk: str, answer: ReplyReceiver, retry_s: float
    ) -> None:
        """The same with a reply callback; the path of every token."""
        raw = chunk.encode()
        prepared = text.prepared
        if prepared is None:
            prepared = text.prepared = self._prepared_append(lease, text)
        prepared.call(append_command(prepared.head, text.offset, raw, text.entry_head), answer, retry_s)
        text.offset += len(raw)

    def _prepared_append(self, lease: Lease, text: OpenText) -> PreparedCall:
        base, session = self.keys.base_of(lease.session), lease.session
        script, keys, arguments = scripts.call(
            "append", fence=self.keys.of_item("f", lease.turn_id, session), log=f"{base}l:{session}",
            head=f"{base}p:{session}", text=f"{base}x:{text.ref}:{session}", holder_fence=lease.fence,
            channel=self.keys.channel(session), offset=0, chunk=b"", entry_head=b"",
        )  # fmt: skip
        # The last three are given with each call.
        several = scripts.several("append")
        return self.redis.prepare(script, keys, arguments[:-3], misplaced=GAP, several=several)

    def check_append(self, lease: Lease, reply: bytes) -> None:
        """Raises LeaseLost for a refused chunk, ServiceError for a chunk whose predecessor was never written."""
        if reply == LOST:
            raise lease_lost(lease, b"cancelled, ended or taken over")
        if reply == GAP:
            raise ServiceError("an earlier append to this message failed; retry the turn")

    async def end(
        self,
        lease: Lease,
        status: str,
        operations: Sequence[WriteOperation],
        *,
        unless_steered: bool = False,
        retry_s: float = 0.0,
    ) -> Position | None:
        """Write the last messages and the terminal, the last operation. Returns its position. Raises LeaseLost.

        With `unless_steered` nothing is written while a steer waits, and the answer is None (STE-8).
        """
        reply = await self._scripts.run_held(
            "end", lease, packed_operations(operations),
            status=status, keep_ms=self.options.ended_turn_ms, window_ms=self.options.window_ms,
            unless_steered=int(unless_steered), count=len(operations), retry_s=retry_s,
        )  # fmt: skip
        if reply[0] == b"steered":
            return None
        return Position.parse_id(reply[1].decode())

    async def renew(self, bucket: int, leases: Sequence[Lease], lease_ms: int) -> list[str]:
        """Extend leases of one bucket. Returns the ids of turns whose lease is lost."""
        base = self.keys.base(bucket)
        named = [part for lease in leases for part in (lease.turn_id, lease.session, lease.fence)]
        window_ms = self.options.window_ms
        lost = await self.redis.call(
            *scripts.call(
                "renew", named, leases=f"{base}leases", base=base, lease_ms=lease_ms, window_ms=window_ms
            )
        )
        return [turn.decode() for turn in lost]

    def place_of(self, session: str) -> float | None:
        """Where the session's server stands among the others, from 0 to 1; None where there is one."""
        return self.redis.place_of(self.keys.base_of(session))

    async def begin_alone(self, lease: Lease) -> None:
        """Nothing runs beside an attempt that is to be made alone: it begins, and counts. Raises LeaseLost."""
        fence, turn = (self.keys.of_item(kind, lease.turn_id, lease.session) for kind in ("f", "t"))
        call = scripts.call("begin_alone", fence=fence, turn=turn, holder_fence=lease.fence)
        if not await self.redis.call(*call):
            raise lease_lost(lease, b"cancelled, ended or taken over")

    async def reap(self, bucket: int, grace_ms: int = 0) -> tuple[str, str, str] | None:
        """Deal with one expired lease of a bucket: (turn id, session, `retried` or `failed`), or None.

        `grace_ms`: for how long owners may renew expired leases after Redis stood still.
        """
        return await self._reap(bucket, "", "", "", counted=True, grace_ms=grace_ms)

    async def hand_back(self, bucket: int, lease: Lease, *, counted: bool = False) -> bool:
        """Return a turn to the queue. `counted`: the attempt failed; else it was given up by a stopping worker."""
        named = (lease.turn_id, lease.session, str(lease.fence))
        return await self._reap(bucket, *named, counted=counted) is not None

    async def record(self, session: str, turn_id: str) -> TurnRecord | None:
        """The record of a turn, or None."""
        values = await self.redis.command("HMGET", self.keys.of_item("t", turn_id, session), *_RECORD)
        status, agent, owner, input_id, begun, handed_back, worker, terminal, cancel = values
        if status is None:
            return None
        return TurnRecord(
            turn_id=turn_id,
            status=status.decode(),
            agent=agent.decode(),
            owner=owner.decode(),
            input_id=input_id.decode(),
            attempts=int(begun) - int(handed_back or 0),
            worker=worker.decode() if worker else None,
            terminal=Position.parse_id(terminal.decode()) if terminal else None,
            cancel_position=Position.parse_id(cancel.decode()) if cancel else None,
        )

    async def active(self, session: str) -> list[TurnRecord]:
        """The session's turns that have no terminal yet."""
        turns = await self.redis.command("HKEYS", f"{self.keys.base_of(session)}a:{session}")
        records = await asyncio.gather(*(self.record(session, turn.decode()) for turn in turns))
        return [record for record in records if record is not None]

    async def turn_of_event(self, session: str, event_id: str) -> str | None:
        """The turn that an input event started, for a day."""
        turn = await self.redis.command("GET", self.keys.of_item("e", event_id, session))
        return turn.decode() if turn else None

    async def _reap(
        self, bucket: int, turn: str, session: str, fence: str, *, counted: bool, grace_ms: int = 0
    ) -> tuple[str, str, str] | None:
        base = self.keys.base(bucket)
        reply = await self.redis.call(
            *scripts.call(
                "reap", leases=f"{base}leases", base=base, named_turn=turn, named_session=session, fence=fence,
                keep_ms=self.options.ended_turn_ms, window_ms=self.options.window_ms, counted=int(counted),
                grace_ms=grace_ms,
            )
        )  # fmt: skip
        if reply is None:
            return None
        return reply[0].decode(), reply[1].decode(), reply[2].decode()

    async def _submit(self, request: TurnRequest, may_burst: bool) -> Any:
        options = self.options
        fields: dict[str, str | bytes | int] = {
            **request.closing.fields(),
            TurnFields.CONTEXT: request.context,
            TurnFields.MAX_ATTEMPTS: request.max_attempts,
            TurnFields.ON_CRASH: request.on_crash,
            TurnFields.CONNECTION: request.messages[0].connection_id or "",
        }
        return await self._scripts.run(
            "submit", request.session, list(itertools.chain.from_iterable(fields.items())),
            entry=pack_created(request.messages), new_epoch=new_epoch(), window_ms=options.window_ms,
            turn=request.turn_id, agent=request.agent, owner=request.owner, input=request.input_id,
            event=request.event_id, body_hash=request.fingerprint, policy=request.policy,
            cancel_filter=request.interrupts.scope, cancel_value=request.interrupts.value,
            cancel_entry=b"" if request.cancel_message is None else pack_created([request.cancel_message]),
            max_active=request.max_active,
            queue_cap=options.queue_cap if request.queue_cap is None else request.queue_cap,
            keep_ms=options.ended_turn_ms, once_ms=options.idempotency_ms,
            retention_ms=options.retention_of(request.session), max_open=options.max_open_turns,
            max_waiting=options.max_waiting, max_wait_ms=options.max_wait_ms,
            burst_wait_ms=options.burst_wait_ms if may_burst else options.max_wait_ms,
            own_suspended_only=int(request.interrupts_own_suspended),
            parent=request.closing.parent or "",
        )  # fmt: skip


def _accepted(request: TurnRequest, reply: Sequence[Any]) -> Accepted:
    """The script's reply to a send that was accepted, now or before."""
    repeated = reply[0] == b"repeated"
    return Accepted(
        turn_id=request.turn_id,
        position=Position.parse_id(reply[1].decode()),
        epoch=reply[2].decode(),
        status=reply[3].decode(),
        repeated=repeated,
        waiting=0 if repeated else reply[4],
        burst=not repeated and reply[5] == 1,
        interrupted=() if repeated else tuple(sorted(turn.decode() for turn in reply[9 + reply[8] :])),
    )


def _taken(reply: Sequence[Any]) -> Lease:
    """The lease that the script's reply gives."""
    return Lease(
        turn_id=reply[0].decode(),
        session=reply[1].decode(),
        fence=int(reply[2]),
        attempt=int(reply[3]),
        max_attempts=int(reply[8]),
        step_start_serial=reply[4].decode(),
        epoch=reply[5].decode(),
        input_position=Position.parse_id(reply[6].decode()),
        context=reply[7],
        send=reply[9],
        more=reply[10] > 0,
        alone=reply[11] == 1,
        continued=reply[12] == 1,
    )
