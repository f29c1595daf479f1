"""User code cancels its own tasks only: neither those of the worker, nor those of other turns (P12).

`for task in asyncio.all_tasks(): task.cancel()` is how programs clean up; in an agent it would end the worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UserCode:
    """Whose code runs, for errors and logs. `role`: agent, tool, cancel hook."""

    role: str
    agent: str
    session: str = ""
    turn: str = ""

    @property
    def turn_of(self) -> tuple[str, str]:
        """Session and turn: an agent and its cancel hook are the same turn's."""
        return self.session, self.turn

    def __str__(self) -> str:
        return f"role={self.role} agent={self.agent} session={self.session} turn={self.turn}"


current_code: ContextVar[UserCode | None] = ContextVar("user_code", default=None)


class GuardedTask(asyncio.Task[T]):
    """A task that only its own user code, or the worker, can cancel."""

    # Of which turn it is; None: of the worker.
    code: UserCode | None = None
    # User code has tried to cancel a task that is not its own, in this iteration of the loop or the last.
    swept: ClassVar[bool] = False

    def cancel(self, msg: Any | None = None) -> bool:
        """False where the caller is user code and the task not of its turn."""
        by = current_code.get()
        if by is None or (self.code is not None and by.turn_of == self.code.turn_of):
            return super().cancel(msg)
        if not GuardedTask.swept:
            logger.error("worker.cancel_refused %s: user code tried to cancel tasks that are not its own", by)
            loop = self.get_loop()
            GuardedTask.swept = True
            loop.call_soon(loop.call_soon, _forget_sweep)
        return False


def _forget_sweep() -> None:
    GuardedTask.swept = False


def guarded(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **options: Any) -> GuardedTask[T]:
    """A task for `work`, which belongs to the worker unless it says whose code it is; a task factory."""
    task = GuardedTask(work, loop=loop, **options)
    code = getattr(work, "code", None)
    task.code = code if isinstance(code, UserCode) else None
    return task


async def run_guarded(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which belongs to the worker, whatever user code does to the task that waits here."""
    waiting = asyncio.current_task()
    task = guarded(asyncio.get_running_loop(), work, name="worker-run")
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # The task that waits here may be the program's own, which a sweep cancels too: that is taken back. A cancel by
            # the program in the same iteration is lost with it.
            if GuardedTask.swept and waiting is not None and not task.done():
                waiting.uncancel()
                continue
            task.cancel()
            await _ended(task)
            if task.cancelled():
                raise
    return task.result()


async def _ended(task: asyncio.Task[Any]) -> None:
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
