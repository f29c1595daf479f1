"""A session as an agent without a queue sees it: turns it starts by their id, and turns it adopts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Protocol

from agent_worker.runtime.control_listener import ControlListener
from agent_worker.workflow.held_turn import HeldTurn
from selfhost_transport.errors import InvalidArgument, LeaseLost, TurnNotStarted, TurnStarted
from selfhost_transport.store.turn_steps import Arrival, TurnSteps

START_TIMEOUT_S = 30.0
"""How long a turn is waited for by default (DUR-15; protocol section 8.4)."""


_LOOK_S = 0.02
"""Delay between two lookups of a turn that does not exist yet."""


class TurnHost(Protocol):
    """What a session needs of its host: the process' turns, and how to take one."""

    @property
    def turns(self) -> list[HeldTurn]: ...  # noqa: D102

    @property
    def steps(self) -> TurnSteps: ...  # noqa: D102

    @property
    def control(self) -> ControlListener: ...  # noqa: D102

    def arrivals(self, agent: str) -> AsyncGenerator[Arrival, None]: ...  # noqa: D102

    async def claim(self, session: str, turn_id: str) -> HeldTurn | None: ...  # noqa: D102

    async def adopt(self, session: str, turn_id: str) -> HeldTurn | None: ...  # noqa: D102


class AgentSession:
    """One session. As a context manager, its turns are detached at the end of the block."""

    def __init__(self, host: TurnHost, name: str) -> None:
        self.name = name
        self.host = host

    @property
    def turns(self) -> list[HeldTurn]:
        """The session's turns that this process holds."""
        return [turn for turn in self.host.turns if turn.session == self.name]

    async def __aenter__(self) -> AgentSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        for turn in self.turns:
            await turn.give_up()

    async def create_turn(
        self,
        turn_id: str | None = None,
        *,
        input_event_id: str | None = None,
        timeout: float = START_TIMEOUT_S,  # noqa: ASYNC109 - it bounds the waiting only
        or_adopt: bool = False,
    ) -> HeldTurn:
        """Start the turn with this id, or the one that an input event started: opens its run.

        Waits for up to `timeout` seconds while the turn is unknown, or waits by policy for another one. With
        `or_adopt` a turn that was started before is adopted: for a first step that an engine repeats. Raises
        TurnNotStarted after the time, TurnStarted, TurnSuspended, TurnEnded; NotFound for an event without a turn.
        """
        if (turn_id is None) == (input_event_id is None):
            raise InvalidArgument("name the turn by its id, or by the id of its input event")
        if turn_id is None:
            turn_id = await self.host.steps.turn_of_event(self.name, input_event_id or "")
        try:
            return await self._waited_for(turn_id, self.host.claim, timeout)
        except TurnStarted:
            if not or_adopt:
                raise
        return await self.adopt(turn_id, timeout=timeout)

    async def adopt(
        self,
        turn_id: str,
        *,
        timeout: float = START_TIMEOUT_S,  # noqa: ASYNC109 - it bounds the waiting only
    ) -> HeldTurn:
        """Continue with a turn that another process started and gave up, or lost; nothing is written.

        Waits for up to `timeout` seconds for it to be started. Raises TurnNotStarted after that; TurnHeld, which is
        worth trying again, while another process holds it; TurnSuspended, TurnEnded.
        """
        return await self._waited_for(turn_id, self.host.adopt, timeout)

    async def end(self) -> None:
        """End the session for this process: its open turns are cancelled."""
        for turn in self.turns:
            # One that was lost meanwhile has ended, or has another holder.
            with contextlib.suppress(LeaseLost):
                await turn.cancel()

    async def _waited_for(
        self, turn_id: str, take: Callable[[str, str], Awaitable[HeldTurn | None]], timeout_s: float
    ) -> HeldTurn:
        turn = await take(self.name, turn_id)
        if turn is not None:
            return turn
        give_up = time.monotonic() + timeout_s
        async with self.host.control.changes(self.name) as changed:
            while True:
                changed.clear()
                if (turn := await take(self.name, turn_id)) is not None:
                    return turn
                try:
                    # Only the waiting is bounded: a turn that was taken must not be forgotten.
                    await asyncio.wait_for(changed.wait(), max(0.0, give_up - time.monotonic()))
                    await asyncio.sleep(_LOOK_S)  # once for all entries of a busy session in this time
                except TimeoutError:
                    raise TurnNotStarted(
                        f"turn {turn_id} of session {self.name!r} was not started within {timeout_s:g} s",
                        detail={"turn": turn_id, "session": self.name},
                    ) from None
