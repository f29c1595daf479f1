"""What has to be quick, on a machine that may be slow: a process is kept waiting for a second now and then.

That makes one try slow; a fault makes every try slow. So a test of such a promise is repeated when it was too slow, and only
then: whatever else fails it, fails it at once.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

TRIES = 5


class TooSlow(AssertionError):
    """All was well, but for the time that it took."""


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Raises TooSlow, and cancels the body, when it takes longer."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if limit.expired():
            raise TooSlow(f"not within {seconds} s") from error
        raise


class Stopwatch:
    """The time since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def assert_below(self, limit: float) -> None:
        """Raises TooSlow."""
        assert_quick(self.seconds, limit)


def assert_quick(seconds: float, limit: float) -> None:
    """Raises TooSlow unless something took less than the limit."""
    if seconds >= limit:
        raise TooSlow(f"took {seconds:.3f} s instead of less than {limit}")


def prompt(test: F) -> F:
    """For a test, or a part of one, that may be repeated: it is, a few times, while it raises TooSlow."""
    if inspect.iscoroutinefunction(test):

        @functools.wraps(test)
        async def repeated(*args: Any, **kwargs: Any) -> Any:
            for _ in range(TRIES - 1):
                with _forgiven(test):
                    return await test(*args, **kwargs)
            return await test(*args, **kwargs)

    else:

        @functools.wraps(test)
        def repeated(*args: Any, **kwargs: Any) -> Any:
            for _ in range(TRIES - 1):
                with _forgiven(test):
                    return test(*args, **kwargs)
            return test(*args, **kwargs)

    return cast(F, repeated)


@contextmanager
def _forgiven(test: Callable[..., Any]) -> Iterator[None]:
    try:
        yield
    except TooSlow as slow:
        print(f"{test.__name__} is tried again: {slow}")
    except ExceptionGroup as group:
        # Tasks beside one that was too slow are only cancelled.
        if group.split(TooSlow)[1] is not None:
            raise
        print(f"{test.__name__} is tried again: {group!r}")
