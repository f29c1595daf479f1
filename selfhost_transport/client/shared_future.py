"""A value that is set once and may be awaited by many, before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Generic, TypeVar

Value = TypeVar("Value")


class SharedFuture(Generic[Value]):
    """Await it for its value; cancelling one waiter affects no other.

    `owner` is kept alive as long as the moment is referenced.
    """

    def __init__(self, owner: object = None) -> None:
        self._owner = owner
        self._event = asyncio.Event()
        self._value: Value | None = None
        self._error: Exception | None = None

    def __await__(self) -> Generator[object, None, Value]:
        return self._wait().__await__()

    def __repr__(self) -> str:
        if not self.done:
            return "<SharedFuture: pending; await it>"
        return f"<SharedFuture: {self._value if self._error is None else self._error!r}>"

    @property
    def done(self) -> bool:
        """Whether it has a value or an error."""
        return self._event.is_set()

    def set(self, value: Value) -> None:
        """Set its value; later calls have no effect."""
        if not self.done:
            self._value = value
            self._event.set()

    def fail(self, error: Exception) -> None:
        """Fail it; later calls have no effect."""
        if not self.done:
            self._error = error
            self._event.set()

    async def _wait(self) -> Value:
        await self._event.wait()
        if self._error is not None:
            raise self._error
        value: Value = self._value  # type: ignore[assignment]
        return value
