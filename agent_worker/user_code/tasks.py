"""User code cancels its own tasks only: neither those of the worker, nor those of other turns (P12).

`for task in asyncio.all_tasks(): task.cancel()` is how programs clean up; in an agent it would end the worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
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


class Sweep:
    """What user code tried in one iteration of the loop, or two: to cancel tasks that are not its own."""

    def __init__(self) -> None:
        self._refused: Counter[int] = Counter()

    def refuse(self, task: asyncio.Task[Any]) -> None:
        """Note a cancel that had no effect."""
        self._refused[id(task)] += 1

    @property
    def times(self) -> int:
        """How often any task of the program may have been cancelled by it."""
        return max(self._refused.values(), default=0)


class GuardedTask(asyncio.Task[T]):
    """A task that only its own user code, or the worker, can cancel."""

    # Of which turn it is; None: of the worker.
    code: UserCode | None = None
    sweep: ClassVar[Sweep | None] = None

    def cancel(self, msg: Any | None = None) -> bool:
        """False where the caller is user code and the task not of its turn."""
        by = current_code.get()
        if by is None or (self.code is not None and by.turn_of == self.code.turn_of):
            return super().cancel(msg)
        if GuardedTask.sweep is None:
            logger.error("worker.cancel_refused %s: user code tried to cancel tasks that are not its own", by)
            loop = self.get_loop()
            GuardedTask.sweep = Sweep()
            loop.call_soon(loop.call_soon, _forget_sweep)
        GuardedTask.sweep.refuse(self)
        return False


def _forget_sweep() -> None:
    GuardedTask.sweep = None


class _Waiting:
    """The task that waits for a worker. It may be the program's own, which a sweep of user code cancels too."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._cancels = self._count()
        self._forgiven: tuple[Sweep | None, int] = (None, 0)

    def takes_back(self) -> bool:
        """Whether all cancels that have reached the task were user code's; if so, they are undone."""
        sweep, cancels = GuardedTask.sweep, self._count() - self._cancels
        if sweep is None or self._task is None:
            return False
        forgiven = self._forgiven[1] if self._forgiven[0] is sweep else 0
        if cancels > sweep.times - forgiven:
            return False
        for _ in range(cancels):
            self._task.uncancel()
        self._forgiven = (sweep, forgiven + cancels)
        return True

    def _count(self) -> int:
        return 0 if self._task is None else self._task.cancelling()


def guarded(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **options: Any) -> GuardedTask[T]:
    """A task for `work`, which belongs to the worker unless it says whose code it is; a task factory."""
    task = GuardedTask(work, loop=loop, **options)
    code = getattr(work, "code", None)
    task.code = code if isinstance(code, UserCode) else None
    return task


async def run_guarded(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which belongs to the worker, whatever user code does to the task that waits here."""
    waiting = _Waiting()
    task = guarded(asyncio.get_running_loop(), work, name="worker-run")
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if waiting.takes_back() and not task.done():
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
