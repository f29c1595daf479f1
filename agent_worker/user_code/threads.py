"""Plain functions of user code, run beside the loop: threads of their own, so that none hangs anything else.

The loop's default executor also resolves host names and is left to that. The threads are daemons: a function that
never returns does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

from agent_worker.user_code.containment import Escaped
from agent_worker.user_code.forks import Forks, end_child
from agent_worker.user_code.tasks import current_code

logger = logging.getLogger(__name__)

T = TypeVar("T")

READ_AHEAD = 64
"""Items that a plain iterable is read ahead of what was written of it."""


class Threads:
    """Up to `size` calls at once; further ones wait. An abandoned call is not counted.

    Up to `size` of those may continue besides, so that hung calls of ended turns do not use up the room of others.
    """

    def __init__(self, size: int, name: str = "user-code") -> None:
        self._size = size
        self._name = name
        self._idle: list[_Thread] = []
        self._waiting: deque[_Call] = deque()
        self._running = 0
        self._left_behind = 0
        self._made = 0

    @property
    def left_behind(self) -> int:
        """Abandoned calls that still run."""
        return self._left_behind

    async def run(self, function: Callable[..., T], *values: Any, **named: Any) -> T:
        """The function's result, or what it raises. Cancelled, the function continues, and its result is dropped."""
        call = _Call(lambda: function(*values, **named))
        self._waiting.append(call)
        self._assign()
        try:
            await call.ended
        finally:
            if not call.over:
                self._leave(call)
        if call.error is not None:
            raise _raisable(call.error, function)
        result: T = call.result
        return result

    async def call(self, function: Callable[..., Awaitable[T] | T], *values: Any, **named: Any) -> T:
        """Call a function of either kind: a coroutine function on the loop, a plain one in a thread."""
        if inspect.iscoroutinefunction(function):
            result: Awaitable[T] | T = function(*values, **named)
        else:
            result = await self.run(function, *values, **named)
        return await result if inspect.isawaitable(result) else result

    def close(self) -> None:
        """Let idle threads end; those that are busy end with their call."""
        for thread in self._idle:
            thread.calls.put(None)
        self._idle.clear()
        self._size = 0

    def _assign(self) -> None:
        while self._waiting and self._running < self._size:
            if not self._idle and self._running + self._left_behind >= 2 * self._size:
                return
            call = self._waiting.popleft()
            if call.ended.done():
                continue
            call.begun = True
            self._running += 1
            self._thread().calls.put(call)

    def _thread(self) -> _Thread:
        if self._idle:
            return self._idle.pop()
        self._made += 1
        return _Thread(f"{self._name}-{self._made}", self._returned)

    def _returned(self, thread: _Thread, call: _Call) -> None:
        """On the loop: a thread is free again."""
        call.over = True
        if call.left:
            self._left_behind -= 1
        else:
            self._running -= 1
        if self._size:
            self._idle.append(thread)
        else:
            thread.calls.put(None)
        if not call.ended.done():
            call.ended.set_result(None)
        self._assign()

    def _leave(self, call: _Call) -> None:
        if not call.begun:
            with contextlib.suppress(ValueError):
                self._waiting.remove(call)
            return
        call.left = True
        self._running -= 1
        self._left_behind += 1
        self._assign()


class _Call:
    """One call, its outcome, and where it stands."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.context = contextvars.copy_context()
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None
        self.begun = self.left = self.over = False
        self._work: Callable[[], Any] | None = work
        self._forks = Forks.count

    def run(self) -> None:
        """In the thread."""
        work, self._work = self._work, None
        assert work is not None
        try:
            self.result = self.context.run(work)
        except BaseException as error:
            self.error = error
        if self._forks != Forks.count:
            end_child(self.context.run(current_code.get) or "role=-", self.error)


class _Thread:
    """A thread and the calls it is given, one at a time."""

    def __init__(self, name: str, returned: Callable[[_Thread, _Call], None]) -> None:
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._returned = returned
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def _serve(self) -> None:
        while (call := self.calls.get()) is not None:
            call.run()
            try:
                call.loop.call_soon_threadsafe(self._returned, self, call)
            except RuntimeError:
                return  # the loop is closed: there is no waiter left
            del call  # a thread that waits for work must not keep the last one's result


class PulledIterable(AsyncIterator[T]):
    """The items of a plain iterable, which may block: it is read by one thread, a little ahead."""

    def __init__(self, source: Iterable[T], threads: Threads) -> None:
        self._source: Iterable[T] | None = source
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._items: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._room = threading.Semaphore(READ_AHEAD)
        self._closed = False
        self._reading: asyncio.Task[None] | None = None

    async def __anext__(self) -> T:
        """The next item. Raises what the iterable raises."""
        if self._reading is None and not self._closed:
            self._reading = asyncio.create_task(self._threads.run(self._read), name="pull")
            self._reading.add_done_callback(lambda _: self._arrived.set())
        while not self._items:
            if self._closed or self._reading is None:
                raise StopAsyncIteration
            if self._reading.done():
                self._reading.result()
                raise StopAsyncIteration
            self._arrived.clear()
            if not self._items and not self._reading.done():
                await self._arrived.wait()
        self._room.release()
        return self._items.popleft()

    async def aclose(self) -> None:
        """Stop reading. A generator is closed by the thread that runs it; another source at once, by another thread."""
        self._closed = True
        self._room.release()
        source, self._source = self._source, None
        if self._reading is None or self._reading.done() or inspect.isgenerator(source):
            if self._reading is None and source is not None:
                await self._threads.run(_close, source)
            elif self._reading is not None:
                self._reading.cancel()
            return
        self._reading.cancel()
        await self._threads.run(_close, source)

    def _read(self) -> None:
        """In the thread."""
        source = self._source
        if source is None:
            return
        try:
            for item in source:
                if not self._offer(item):
                    return
        finally:
            _close(source)

    def _offer(self, item: T) -> bool:
        """Hand an item over; whether more is wanted."""
        if self._closed:
            return False
        self._items.append(item)
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:
            return False
        self._room.acquire()
        return not self._closed


def _close(source: object) -> None:
    close = getattr(source, "close", None)
    if callable(close):
        try:
            close()
        except ValueError:
            pass  # a generator that runs at this moment closes by itself
        except Exception as error:
            logger.warning(
                "source.close_failed source=%s error=%s", type(source).__name__, type(error).__name__
            )


def _raisable(error: BaseException, function: Callable[..., Any]) -> BaseException:
    """The error as a coroutine may raise it: it must neither end a generator, nor look like a cancellation, nor get out."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    name = getattr(function, "__name__", type(function).__name__)
    raised: Exception
    if isinstance(error, StopIteration | StopAsyncIteration | asyncio.CancelledError):
        raised = RuntimeError(f"{name} raised {type(error).__name__}")
    else:
        raised = Escaped(error)
    raised.__cause__ = error
    return raised
