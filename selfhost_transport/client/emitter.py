"""Notifies subscribers; one that raises affects no other (SES-13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from selfhost_transport.hooks import call_plainly

Event = TypeVar("Event")
Unsubscribe: TypeAlias = Callable[[], None]


class Emitter(Generic[Event]):
    """Calls its subscribers in the order they subscribed, in the event loop's thread."""

    def __init__(self, on_failure: Callable[[Exception], None]) -> None:
        self._on_failure = on_failure
        self._subscribers: dict[int, Callable[[Event], object]] = {}
        self._numbers = 0

    def __bool__(self) -> bool:
        return bool(self._subscribers)

    def subscribe(self, callback: Callable[[Event], object]) -> Unsubscribe:
        """Call `callback` for each event until the returned function is called."""
        self._numbers += 1
        number = self._numbers
        self._subscribers[number] = callback
        return lambda: self._subscribers.pop(number, None) and None

    def emit(self, event: Event) -> None:
        """Notify all subscribers; what one raises goes to `on_failure`."""
        for callback in list(self._subscribers.values()):
            if (error := call_plainly(callback, event)) is not None:
                self._on_failure(error)
