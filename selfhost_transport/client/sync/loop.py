"""An event loop in a thread of its own, for programs without one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from selfhost_transport.errors import InvalidArgument, SessionClosed, TransportError

Result = TypeVar("Result")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="selfhost-transport", daemon=True)
        self._thread.start()
        self._process = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from the one that the thread runs in."""
        return os.getpid() != self._process

    def run(self, work: Coroutine[Any, Any, Result], timeout: float | None = None) -> Result:
        """Wait for a coroutine. Raises what it raises, TimeoutError after `timeout` seconds, SessionClosed."""
        try:
            self.check()
        except TransportError:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except BaseException:
            # The caller no longer waits: it timed out, or Ctrl-C was pressed.
            future.cancel()
            raise

    def check(self) -> None:
        """Raises SessionClosed when nothing can run here any more, InvalidArgument in the loop's own thread."""
        if self.is_forked:
            raise SessionClosed(
                "this transport was connected before the process was forked, and threads and connections do not survive "
                "a fork: connect in the child (gunicorn: post_fork or without --preload; Celery: worker_process_init)"
            )
        if threading.current_thread() is self._thread:
            raise InvalidArgument(
                "called from a callback, on the thread that must deliver the reply: make the call on another thread"
            )
        if self._loop.is_closed():
            raise SessionClosed("the transport is closed")

    def call(self, work: Callable[[], Result]) -> Result:
        """Call a function in the loop's thread and wait for it."""

        async def once() -> Result:
            return work()

        return self.run(once())

    def close(self) -> None:
        """Stop the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
