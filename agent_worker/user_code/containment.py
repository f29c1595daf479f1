"""User code cannot affect the process: any exception ends only its own turn (P12).

asyncio lets SystemExit and KeyboardInterrupt out of a task into the loop, which ends it. So the code of an agent, a
tool or a hook runs in a `Contained` coroutine that turns them into an error, and so does every task which it starts:
while a worker runs, the loop's task factory sees from the context whose code starts one. Nor can it cancel tasks of
others (tasks.py), or continue in a child that it forked (forks.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Coroutine, Generator, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

from agent_worker.user_code.errors import AgentError
from agent_worker.user_code.forks import Forks, end_child
from agent_worker.user_code.tasks import UserCode, current_code, guarded

T = TypeVar("T")


class ControlFlow(BaseException):
    """Leaves user code on behalf of the runtime; not an `Exception`, so that the code does not catch it."""


class Escaped(AgentError):
    """User code tried to end more than its turn: it raised SystemExit, KeyboardInterrupt or the like."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            f"the agent's code raised {type(error).__name__}, which would have stopped the process; only this turn was ended"
        )


class Contained(Coroutine[Any, Any, T]):
    """A coroutine of user code, from which only errors get out. Raises Escaped for anything else but a cancellation."""

    __slots__ = ("_forks", "_inner", "code")

    def __init__(self, inner: Coroutine[Any, Any, T], code: UserCode) -> None:
        self._inner = inner
        self._forks = Forks.count
        self.code = code

    def send(self, value: Any) -> Any:
        """Run to the next await."""
        try:
            awaited = self._inner.send(value)
        except BaseException as error:
            self._leave(error)
            raise
        if self._forks != Forks.count:
            end_child(self.code)
        return awaited

    def throw(self, *raised: Any) -> Any:
        """Raise in it: asyncio's way to cancel."""
        try:
            awaited = self._inner.throw(*raised)
        except BaseException as error:
            self._leave(error)
            raise
        if self._forks != Forks.count:
            end_child(self.code)
        return awaited

    def _leave(self, error: BaseException) -> None:
        if self._forks != Forks.count:
            end_child(self.code, error)
        _raise_instead(error)

    def close(self) -> None:
        """Give it up."""
        try:
            self._inner.close()
        except BaseException as error:
            _raise_instead(error)
            raise

    def __await__(self) -> Generator[Any, Any, T]:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def start(work: Coroutine[Any, Any, T], code: UserCode, name: str | None = None) -> asyncio.Task[T]:
    """Run user code in a task of its own."""
    context = contextvars.copy_context()
    context.run(current_code.set, code)
    return asyncio.get_running_loop().create_task(Contained(work, code), name=name, context=context)


def code_in(frame: FrameType | None) -> UserCode | None:
    """Whose code is being run on a stack; None: no user code."""
    while frame is not None:
        if frame.f_code in _ENTRIES and isinstance(contained := frame.f_locals.get("self"), Contained):
            return contained.code
        frame = frame.f_back
    return None


_ENTRIES = (Contained.send.__code__, Contained.throw.__code__)


@contextlib.contextmanager
def children_contained() -> Iterator[None]:
    """While the block runs, tasks that user code starts on the running loop are contained too; others are not touched."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
        context = options.get("context")
        code = current_code.get() if context is None else context.get(current_code)
        if code is not None and not isinstance(work, Contained):
            work = Contained(work, code)
        if before is None:
            return guarded(loop, work, **options)
        return before(loop, work, **options)

    loop.set_task_factory(factory)
    try:
        yield
    finally:
        # A task factory installed over ours calls ours if it chooses to.
        if loop.get_task_factory() is factory:
            loop.set_task_factory(before)


def drop_frames(error: BaseException | None) -> None:
    """Let go of what the frames of an error hold: they and the error hold each other, and the collector is slow."""
    for one in _chain(error):
        _clear(one.__traceback__)
        one.__traceback__ = None


def shorten(error: BaseException) -> None:
    """Leave the middle out of deep tracebacks: writing down 1,000 frames of a recursion blocks the loop for 100 ms."""
    for one in _chain(error):
        links: list[TracebackType] = []
        trace = one.__traceback__
        while trace is not None:
            links.append(trace)
            trace = trace.tb_next
        if len(links) > _FIRST_FRAMES + _LAST_FRAMES:
            links[_FIRST_FRAMES - 1].tb_next = links[-_LAST_FRAMES]


_FIRST_FRAMES, _LAST_FRAMES, _LONGEST_CHAIN = 15, 25, 100


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error with its causes and the members of groups; chains may be cyclic."""
    seen: set[int] = set()
    left = [error]
    while left and len(seen) < _LONGEST_CHAIN:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
        yield one


def _clear(trace: TracebackType | None) -> None:
    while trace is not None:
        with contextlib.suppress(RuntimeError):  # it still runs
            trace.tb_frame.clear()
        trace = trace.tb_next


def _raise_instead(error: BaseException) -> None:
    """Raise what stands for an error of user code, if it is not to get out as it is."""
    if isinstance(error, StopIteration | asyncio.CancelledError | ControlFlow):
        return
    shorten(error)
    if isinstance(error, Exception):
        return
    if isinstance(error, BaseExceptionGroup):
        # A task group of the agent's own, in which one task has suspended the turn.
        control, rest = error.split(ControlFlow)
        if control is not None and rest is None:
            raise _first(control) from None
    raise Escaped(error) from error


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
