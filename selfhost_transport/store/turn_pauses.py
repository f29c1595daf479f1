"""What a worker does between streaming and ending: suspend, take steers, decide about a cancel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.entries import Ref, pack_created
from selfhost_transport.store.fields import TurnFields
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.store.turn_inputs import Continuation
from selfhost_transport.store.turn_operations import WriteOperation, packed_operations
from selfhost_transport.store.turn_store import Lease, lease_lost
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position

LONGEST_HOOK_GRACE_S = 8.0
"""The longest that an agent's cancel hook may take. The requester's gateway waits longer than this for its decision."""


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A cancel that waits for an agent's verdict. `requester`: verified, '' for an anonymous one.

    `matched`: the turns whose agents are asked about the same cancel, with their owners.
    """

    requester: str
    position: Position
    matched: dict[str, str]


@dataclass(frozen=True, slots=True)
class Escalation:
    """An entry that is written when a turn has been suspended for this long."""

    after_ms: int
    message: Message


class TurnPauses:
    """Raises LeaseLost when the turn is no longer the worker's, StoreUnavailable, StoreFull."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, options: StoreOptions | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._options = options or StoreOptions()
        self._scripts = SessionScripts(redis, keys)

    async def suspend(
        self,
        lease: Lease,
        awaited: Sequence[str],
        operations: Sequence[WriteOperation],
        *,
        limit_ms: int = 0,
        escalation: Escalation | None = None,
        expiry_answers: Mapping[str, Message] | None = None,
        continuation: Continuation | None = None,
        retry_s: float = 0.0,
    ) -> bool:
        """Write the last messages (the suspension is the last) and wait for the answers to `awaited` calls.

        `escalation` has to come before `limit_ms`. After that the `expiry_answers` (by call) are published for what is
        still open, and `continuation` opens the next invocation. True if suspended, False if all answers were there
        already and the turn is queued again.
        """
        next_fields = continuation.fields() if continuation is not None else []
        expiries = [
            part
            for call, message in (expiry_answers or {}).items()
            for part in (call, pack_created([message]))
        ]
        rest = [*next_fields, len(expiries) // 2, *expiries, len(operations), *packed_operations(operations)]
        reply = await self._scripts.run_held(
            "suspend", lease, rest,
            awaited=json.dumps(list(awaited)), window_ms=self._options.window_ms, limit_ms=limit_ms,
            escalate_ms=escalation.after_ms if escalation is not None else 0,
            escalation_entry=pack_created([escalation.message]) if escalation is not None else b"",
            field_count=len(next_fields) // 2, retry_s=retry_s,
        )  # fmt: skip
        return bool(reply[0] == b"suspended")

    async def suspended_ms(self, session: str, turn_id: str) -> float | None:
        """When a turn was suspended last, ms since the epoch by the clock of Redis; None: never."""
        at = await self._redis.command(
            "HGET", self._keys.of_item("t", turn_id, session), TurnFields.SUSPEND_POSITION
        )
        return None if at is None else float(Position.parse_id(at.decode()).ms)

    async def drain(self, lease: Lease) -> list[Ref]:
        """The steers that wait, which count as consumed from now on."""
        fence, waiting = (self._keys.of_item(letter, lease.turn_id, lease.session) for letter in "fy")
        call = scripts.call("drain", fence=fence, waiting=waiting, holder_fence=lease.fence)
        # It may be sent again after a lost reply: the history has the steers.
        reply = await self._redis.call(*call, retry_s=self._redis.read_s)
        if reply == b"lost":
            raise lease_lost(lease, b"cancelled, ended or taken over")
        return [Ref.parse(ref.decode()) for ref in reply]

    async def steered(self, lease: Lease) -> bool:
        """Whether a steer waits that the worker has not taken."""
        steers = self._keys.of_item("y", lease.turn_id, lease.session)
        return bool(await self._redis.command("EXISTS", steers))

    async def decide(self, lease: Lease, *, allow: bool, message: Message, grace_ms: int) -> Position:
        """Settle a cancel this worker was asked about; `message` announces the outcome. Returns its position.

        Allowed: the turn's content is refused from that position on; for `grace_ms` the worker may write a closing
        note and the end under the lease with fence `<fence>n`.
        """
        reply = await self._scripts.run_held(
            "decide", lease,
            decision="allow" if allow else "deny", entry=pack_created([message]),
            window_ms=self._options.window_ms, grace_ms=grace_ms,
        )  # fmt: skip
        return Position.parse_id(reply[0].decode())

    async def asked(self, lease: Lease) -> CancelAsked | None:
        """The cancel that a turn's hook has to decide about; None when it was decided by then."""
        base, session = self._keys.base_of(lease.session), lease.session
        fields = await self._redis.command(
            "HMGET",
            self._keys.of_item("t", lease.turn_id, session),
            TurnFields.STATUS,
            TurnFields.CANCEL_REQUESTER,
            TurnFields.CANCEL_ENTRY,
        )
        if fields[0] != b"cancelling":
            return None
        owners = await self._redis.command("HGETALL", f"{base}a:{session}")
        matched: dict[str, str] = {}
        for turn, owner in zip(owners[::2], owners[1::2], strict=True):
            key = self._keys.of_item("t", turn.decode(), session)
            same = await self._redis.command("HGET", key, TurnFields.CANCEL_ENTRY)
            if same == fields[2]:
                matched[turn.decode()] = owner.decode()
        return CancelAsked(fields[1].decode(), Position.parse_id(fields[2].decode()), matched)

    async def expire(self, bucket: int) -> tuple[str, str, str] | None:
        """Handle one expired deadline of a bucket: (turn id, session, what), or None."""
        base = self._keys.base(bucket)
        reply = await self._redis.call(
            *scripts.call(
                "expire", deadlines=f"{base}deadlines", base=base, keep_ms=self._options.ended_turn_ms,
                window_ms=self._options.window_ms,
            )
        )  # fmt: skip
        if reply is None:
            return None
        return reply[0].decode(), reply[1].decode(), reply[2].decode()
