"""Puts a turn back into its queue after an attempt that failed or was given up: whether it may, and after which pause."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from agent_worker.agent.agent import Agent
from agent_worker.output.writer import Hold
from agent_worker.user_code.errors import wants_another_attempt
from selfhost_transport.redis_io.refusals import RedisFailure
from selfhost_transport.store.turn_store import Lease, TurnStore

_RETURN_PAUSE_S: Final = 0.5
# A turn that loses the connection whenever it is run must come to an end nevertheless.
_MOST_RETURNS: Final = 20
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Requeue:
    """Of one attempt. `retry_errors`: whether a failed attempt is repeated where the agent has no rule of its own."""

    turns: TurnStore
    agent: Agent
    lease: Lease
    bucket: int
    hold: Hold
    retry_errors: bool

    def may_return(self) -> bool:
        """Whether it may go back without the attempt being counted."""
        fence = self.lease.fence
        return isinstance(fence, int) and fence <= self.lease.max_attempts + _MOST_RETURNS

    def may_retry(self, error: BaseException) -> bool:
        """Whether an attempt that raised is followed by another."""
        default = self.agent.retry_errors
        wanted = wants_another_attempt(error, self.retry_errors if default is None else default)
        return wanted and self.lease.attempt < self.lease.max_attempts

    async def give_up(self) -> None:
        """Put it back; the attempt does not count."""
        await self.turns.hand_back(self.bucket, self.lease)

    async def give_up_without_redis(self) -> None:
        """The same, for as long as the lease lasts. Raises RedisFailure then: the lease runs out."""
        until = time.monotonic() + self.hold.retry_s
        while True:
            try:
                await self.give_up()
                return
            except RedisFailure:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(_RETURN_PAUSE_S)  # paces asking while Redis is away

    async def retry(self, aborted: asyncio.Future[Any]) -> None:
        """Put it back after a pause that grows with the attempts (TRN-9), unless it is aborted meanwhile."""
        pause = min(_FIRST_PAUSE_S * 2 ** (self.lease.attempt - 1), _LONGEST_PAUSE_S)
        await asyncio.wait({aborted}, timeout=pause)
        if not aborted.done():
            await self.turns.hand_back(self.bucket, self.lease, counted=True)
