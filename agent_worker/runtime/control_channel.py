"""What a process does with the notifications on the control channels of its buckets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfhost_transport.store.names import control_message


def _ignored() -> None: ...


@dataclass(frozen=True, slots=True)
class ControlChannel:
    """Reads the control channels for one holder of turns.

    `on_push` gets `stop`, `ask` or `input`, the bucket, the turn and the fence of a lease of `holder`; `on_wake` the
    bucket and the agent that a turn waits for; `on_drain` says that the process is to stop.
    """

    holder: str
    on_push: Callable[[str, int, str, str], None]
    on_wake: Callable[[int, str], None]
    on_drain: Callable[[], None] = _ignored

    def receiver(self, bucket: int) -> Callable[[bytes], None]:
        """What to call with each notification of a bucket; those for others have no effect."""

        def received(payload: bytes) -> None:
            match control_message(payload):
                case ["wake", agent]:
                    self.on_wake(bucket, agent)
                case ["drain", holder] if holder == self.holder:
                    self.on_drain()
                case [("stop" | "ask" | "input") as push, holder, turn, fence] if holder == self.holder:
                    self.on_push(push, bucket, turn, fence)

        return received
