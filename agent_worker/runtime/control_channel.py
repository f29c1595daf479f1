"""What a process does with the notifications on the control channels of its buckets.

Each bucket has a channel that all processes listen to, and one for each process: what concerns one process wakes no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.names import control_message, part


def _ignored() -> None: ...


@dataclass(frozen=True, slots=True)
class ControlChannel:
    """Reads the control channels for one holder of turns.

    `on_push` gets `stop`, `ask` or `input`, the bucket, the turn and the fence of a lease of `holder`; `on_call` the
    bucket, the agent that a turn waits for, and whether only a few are called for it; `on_drain` says that the process is
    to stop.
    """

    holder: str
    on_push: Callable[[str, int, str, str], None]
    on_call: Callable[[int, str, bool], None]
    on_drain: Callable[[], None] = _ignored

    async def subscribe(self, subscriber: Subscriber, base: str, bucket: int) -> None:
        """Returns once notifications of a bucket arrive, whose keys start with `base`."""
        await asyncio.gather(
            subscriber.subscribe(f"{base}ctl", self.receiver(bucket)),
            subscriber.subscribe(f"{base}ctl:{part(self.holder)}", self.receiver(bucket, is_own=True)),
        )

    async def subscribe_all(self, subscriber: Subscriber, bases: Iterable[str]) -> None:
        """The same for all buckets."""
        await asyncio.gather(*(self.subscribe(subscriber, base, bucket) for bucket, base in enumerate(bases)))

    def receiver(self, bucket: int, *, is_own: bool = False) -> Callable[[bytes], None]:
        """What to call with each notification of a bucket; those for others have no effect.

        `is_own`: of the channel that no other process listens to.
        """

        def received(payload: bytes) -> None:
            match control_message(payload):
                case ["wake", agent]:
                    self.on_call(bucket, agent, is_own)
                case ["drain", holder] if holder == self.holder:
                    self.on_drain()
                case [("stop" | "ask" | "input") as push, holder, turn, fence] if holder == self.holder:
                    self.on_push(push, bucket, turn, fence)

        return received
