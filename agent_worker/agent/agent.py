"""What an application declares about an agent, and how its function is called."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import GeneratorType
from typing import Any, TypeAlias

from agent_worker.agent.cancel_hook import CancelHook
from agent_worker.agent.turn import Turn
from agent_worker.output.message import OutputChunk
from selfhost_transport.settings_values import CrashRule
from selfhost_transport.turns.codec import Codec

Handler: TypeAlias = (
    Callable[[Turn], AsyncIterator[OutputChunk]]
    | Callable[[Turn], Iterator[OutputChunk]]
    | Callable[[Turn], Awaitable[Any]]
)
"""A generator that yields its answer (a plain one runs in a thread), or a coroutine that pipes it."""


class OnSteer(StrEnum):
    """What a message sent into a running turn does to the call of the model that is under way."""

    NEXT_PASS = "next_pass"  # it ends by itself; another one answers the message
    ABORT_CALL = "abort_call"  # it is cut off, and what it wrote is kept


@dataclass(frozen=True, slots=True)
class Agent:
    """A named function that answers turns. None fields are decided by the send's namespace and the settings."""

    name: str
    handler: Handler
    on_crash: CrashRule | None = None
    max_attempts: int | None = None
    # Whether an attempt that raised is repeated while attempts are left.
    retry_errors: bool | None = None
    deadline_s: float | None = None
    # Longest time without output; None: no limit.
    silence_s: float | None = None
    on_steer: OnSteer = OnSteer.NEXT_PASS
    # Whether its activity shows in the presence of its sessions.
    presence: bool = False
    # Decides about cancels; None: every cancel takes effect at once.
    on_cancel: CancelHook | None = None
    # Codec of its answers; None: that of the request (SDK-5).
    codec: Codec | None = None

    async def answer(self, turn: Turn) -> None:
        """Run the function to its end. Raises what it raises; a generator's error raises here too.

        Raises TypeError for a function that is neither, which ends the turn like any other error of an agent.
        """
        answer: Any = self.handler(turn)
        if inspect.isawaitable(answer):
            await answer
        elif isinstance(answer, AsyncIterator | GeneratorType):
            await turn.pipe(answer)
        else:
            wrong = f"the agent {self.name!r} returned {type(answer).__name__}"
            raise TypeError(f"{wrong}: write it as an async generator or a coroutine")
        if turn.last_result is not None:
            turn.last_result.raise_for_error()
