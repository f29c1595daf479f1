"""A block whose task can be stopped from outside, with an error of one's own instead of `CancelledError`."""

from __future__ import annotations

import asyncio
from types import TracebackType

from selfhost_transport.errors import TransportError


class AbortScope:
    """`abort(error)` cancels the task inside the block; the block then raises `error`.

    Any other cancellation passes through. Works like `asyncio.timeout`.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        # Cancellations that were requested before the block.
        self._before = 0
        self._error: TransportError | None = None
        self._asked = False

    def __enter__(self) -> AbortScope:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._before = self._task.cancelling()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        assert task is not None
        if self._error is None:
            return
        ours = not self._asked or task.uncancel() <= self._before
        if kind is None or (ours and issubclass(kind, asyncio.CancelledError)):
            raise self._error

    def abort(self, error: TransportError) -> None:
        """Leave the block with `error`; nothing happens outside of it, and the first error counts."""
        if self._task is None or self._error is not None:
            return
        self._error = error
        # A task that stops itself is about to raise, and leaves the block by that.
        if self._task is not asyncio.current_task():
            self._asked = True
            self._task.cancel()
