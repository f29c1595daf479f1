"""What participants do to a turn that exists: steer it, answer its calls, start it earlier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfhost_transport.errors import Busy, CapabilityError, Conflict, NotFound, TurnEnded
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import Written, pack_created
from selfhost_transport.store.fields import TurnFields
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.store.turn_records import PackedClosing
from selfhost_transport.store.turn_store import ClosingMessages
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position


@dataclass(frozen=True, slots=True)
class Continuation:
    """The invocation that the last answer to a suspended turn starts: its life-cycle messages and context.

    `closing.run_start` is the message that opens it: an `ai-run-resume`.
    """

    closing: ClosingMessages | PackedClosing
    context: bytes

    def fields(self) -> list[str | bytes]:
        """Names and values of the turn's hash, flat."""
        named: Mapping[str, bytes] = {**self.closing.fields(), TurnFields.CONTEXT: self.context}
        return [part for pair in named.items() for part in pair]


@dataclass(frozen=True, slots=True)
class InputAccepted(Written):
    """The answer to an input. `status`: of the turn afterwards; `pending` when the input resumed it."""

    status: str
    repeated: bool = False


class TurnInputs:
    """Inputs into turns. Raises StoreUnavailable and StoreFull besides what each method names."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, options: StoreOptions | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._options = options or StoreOptions()
        self._scripts = SessionScripts(redis, keys)

    async def steer(
        self, session: str, turn_id: str, messages: list[Message], *, publish_id: str = ""
    ) -> InputAccepted:
        """A message into a running turn, for its next model call. Raises TurnEnded, NotFound."""
        return await self._input(session, turn_id, messages, "steer", "", publish_id, [])

    async def answer(
        self,
        session: str,
        turn_id: str,
        messages: list[Message],
        call: str,
        continuation: Continuation,
        *,
        publish_id: str = "",
    ) -> InputAccepted:
        """The answer to one call (`result:<id>` or `approval:<id>`); the first one wins (TOL-7).

        Answered while the turn is still active, it waits for the suspension. Raises Conflict with the winner's
        position (reason `already_resolved`), TurnEnded, NotFound.
        """
        return await self._input(
            session, turn_id, messages, "answer", call, publish_id, continuation.fields()
        )

    async def promote(
        self, session: str, turn_id: str, *, owner: str | None = None, max_active: int = 0
    ) -> bool:
        """Start a waiting turn now. False when it was not waiting.

        `owner`: the only client id whose turn it may be; None: any. `max_active`: turns that may run at once, 0 for
        no limit. Raises NotFound, CapabilityError for another's turn, Busy where as many run.
        """
        reply = await self._scripts.run(
            "promote", session, turn=turn_id, owner=owner or "",
            owner_only=int(owner is not None), max_active=max_active,
        )  # fmt: skip
        match reply:
            case None:
                raise NotFound(f"there is no turn {turn_id} in this session")
            case [b"forbidden"]:
                raise CapabilityError(
                    "the credentials permit `turn-start` only, which covers the client's own turns"
                )
            case [b"full", running]:
                raise Busy(
                    f"{running} turns run in this session, which is its limit; the turn waits until one ends",
                    detail={"running": running},
                )
        return bool(reply == b"queued")

    async def context(self, session: str, turn_id: str) -> bytes | None:
        """The packed context of an open turn's present invocation; None for a turn that is over or unknown."""
        packed: bytes | None = await self._redis.command(
            "HGET", self._keys.of_item("t", turn_id, session), TurnFields.CONTEXT
        )
        return packed

    async def waiting(self, session: str) -> list[str]:
        """The ids of turns that wait by policy, in the order in which they will start."""
        turns = await self._redis.command("LRANGE", f"{self._keys.base_of(session)}w:{session}", 0, -1)
        return [turn.decode() for turn in turns]

    async def _input(
        self,
        session: str,
        turn_id: str,
        messages: list[Message],
        kind: str,
        call: str,
        publish_id: str,
        fields: list[str | bytes],
    ) -> InputAccepted:
        reply: list[Any] = await self._scripts.run(
            "input", session, fields, entry=pack_created(messages),
            window_ms=self._options.window_ms, turn=turn_id, kind=kind, call=call, publish_id=publish_id,
            once_ms=self._options.idempotency_ms,
        )  # fmt: skip
        match reply[0]:
            case b"unknown":
                raise NotFound(f"there is no turn {turn_id} in this session, or it ended long ago")
            case b"ended":
                raise TurnEnded(
                    f"turn {turn_id} has ended ({reply[1].decode()}); send a new message instead",
                    detail={"turn": turn_id, "status": reply[1].decode()},
                )
            case b"resolved":
                raise Conflict(
                    f"call {call!r} of turn {turn_id} was answered before; the first answer counts",
                    detail={
                        "reason": "already_resolved",
                        "turn": turn_id,
                        "call": call,
                        "position": reply[1].decode(),
                    },
                )
        return InputAccepted(
            position=Position.parse_id(reply[1].decode()),
            epoch=reply[2].decode(),
            status=reply[3].decode(),
            repeated=reply[0] == b"repeated",
        )
