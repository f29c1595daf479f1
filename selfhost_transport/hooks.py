"""Calling the functions that an application gives: nothing they raise gets further than to who called them (P12).

SystemExit and KeyboardInterrupt leave a task for the event loop, and end it. A `CancelledError` that a function raises of
its own would look as if its caller had been cancelled. Both become HookFailed here. Plain functions run in a thread of
their own, since they may block.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from selfhost_transport.errors import ServiceError

T = TypeVar("T")


class HookFailed(ServiceError):
    """A function of the application raised something other than an error of its own."""

    def __init__(self, function: object, raised: BaseException) -> None:
        super().__init__(f"{name_of(function)} raised {type(raised).__name__}")


async def call_hook(function: Callable[..., Awaitable[T] | T], *values: Any) -> T:
    """The function's result, or an Exception. Raises CancelledError only when the caller is cancelled."""
    task = asyncio.create_task(_outcome(function, values), name=f"hook {name_of(function)}")
    result, raised = await task
    if raised is not None:
        raise raised
    return result  # type: ignore[no-any-return]


def call_plainly(function: Callable[..., object], *values: Any) -> Exception | None:
    """Call a plain function here and now; what it raised."""
    try:
        function(*values)
    except BaseException as raised:
        return as_exception(function, raised)
    return None


def as_exception(function: object, raised: BaseException) -> Exception:
    """The same error if it is one that may be raised anywhere, else HookFailed."""
    if isinstance(raised, Exception) and not isinstance(raised, StopIteration | StopAsyncIteration):
        return raised
    failed = HookFailed(function, raised)
    failed.__cause__ = raised
    return failed


def name_of(function: object) -> str:
    """What a function is called, for messages."""
    return str(getattr(function, "__qualname__", type(function).__name__))


def said(error: BaseException) -> str:
    """What an error says; its own text may fail, or be empty."""
    try:
        return str(error)[:500] or type(error).__name__
    except BaseException:
        return type(error).__name__


async def _outcome(function: Callable[..., Any], values: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        is_coroutine = inspect.iscoroutinefunction(function)
        result = function(*values) if is_coroutine else await _in_thread(function, values)
        return (await result if inspect.isawaitable(result) else result), None
    except asyncio.CancelledError as raised:
        if task is not None and task.cancelling() > before:
            raise
        return None, as_exception(function, raised)
    except BaseException as raised:
        return None, as_exception(function, raised)


async def _in_thread(function: Callable[..., Any], values: tuple[Any, ...]) -> Any:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def resolve(outcome: tuple[Any, BaseException | None]) -> None:
        if not ended.done():
            ended.set_result(outcome)

    def run() -> None:
        try:
            outcome: tuple[Any, BaseException | None] = (context.run(function, *values), None)
        except BaseException as raised:
            outcome = (None, raised)
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is no waiter left
            loop.call_soon_threadsafe(resolve, outcome)

    threading.Thread(target=run, name=f"hook {name_of(function)}", daemon=True).start()
    result, raised = await ended
    if raised is not None:
        raise raised
    return result
