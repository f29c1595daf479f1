"""Appends of one connection, gathered per message for its window and written as one (protocol section 7.6).

What is gathered is acknowledged once it is written (P11), each append with a version serial of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from gateway.commands.commands import AppendToMessage
from gateway.realtime.effects import Command
from selfhost_transport.settings_values import ROLLUP_WINDOWS_MS
from selfhost_transport.store.appends import MAX_APPENDS
from selfhost_transport.store.entries import Ref

PARAM: Final = "appendRollupWindow"
DEFAULT_WINDOW_MS: Final = 40
MAX_GATHERED: Final = MAX_APPENDS // 2
"""Appends of one message that are held at most."""
MAX_HELD: Final = 4000
"""Appends that are held at most for one connection."""
PROMPT_S: Final = 0.01
"""An append that comes so soon after the answer to the one before was waiting for that answer."""
PATIENCE: Final = 2
"""Appends that waited for an answer in a row; the next ones are not held: that would only slow their sender down."""


def window_ms(text: str | None) -> int:
    """The window that a connection asks for; the default for anything that is no window."""
    known = {str(window): window for window in ROLLUP_WINDOWS_MS}
    return known.get(text or "", DEFAULT_WINDOW_MS)


class _Message:
    """A message that was appended to within the last window."""

    __slots__ = ("answered_at", "held", "waited", "wrote_at")

    def __init__(self) -> None:
        self.held: list[tuple[Command, AppendToMessage]] = []
        self.wrote_at = 0.0
        # When the last append was answered; None while it is not, or if several were written as one.
        self.answered_at: float | None = None
        # Appends in a row that were sent only once the one before was answered.
        self.waited = 0


class AppendCoalescer:
    """Passes operations on to `start`, with appends to one message joined. `window_ms` 0: none is held."""

    __slots__ = ("_alone", "_clock", "_held", "_messages", "_start", "_timers", "_window_s")

    def __init__(
        self, window_ms: int, start: Callable[[Command], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._window_s = window_ms / 1000
        self._start = start
        self._clock = clock
        self._messages: dict[tuple[str, Ref], _Message] = {}
        # Tickets of appends that were written alone and are not answered yet.
        self._alone: dict[int, _Message] = {}
        self._held = 0
        self._timers: dict[tuple[str, Ref], asyncio.TimerHandle] = {}

    def add(self, command: Command) -> None:
        """Begin an operation, or hold it. All that is held goes before anything that is no append."""
        operation = command.operation
        if not isinstance(operation, AppendToMessage):
            self.flush()
            self._start(command)
        elif not self._window_s:
            self._start(command)
        else:
            self._append(command, operation)

    def answered(self, ticket: int) -> None:
        """An operation was answered: its waiters continue."""
        message = self._alone.pop(ticket, None)
        if message is not None:
            message.answered_at = self._clock()

    def flush(self) -> None:
        """Begin everything that is held."""
        if self._held:
            for message in list(self._messages.values()):
                self._write(message)

    def close(self) -> None:
        """Start all held appends."""
        self.flush()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._window_s = 0.0

    def _append(self, command: Command, append: AppendToMessage) -> None:
        key = (append.session, append.ref)
        message = self._messages.get(key)
        if message is None:
            message = self._messages[key] = _Message()
            self._watch(key, self._window_s)
            self._send(message, [(command, append)])
        elif self._waits(message):
            self._send(message, [(command, append)])
        else:
            self._hold(message, command, append)

    def _waits(self, message: _Message) -> bool:
        """Whether the sender sends each append only once the one before was answered."""
        answered_at = None if message.held else message.answered_at
        prompt = answered_at is not None and self._clock() - answered_at <= PROMPT_S
        message.waited = message.waited + 1 if prompt else 0
        return message.waited > PATIENCE

    def _hold(self, message: _Message, command: Command, append: AppendToMessage) -> None:
        if message.held and not _join(message.held[-1][1], append):
            self._write(message)
        message.held.append((command, append))
        self._held += 1
        if len(message.held) >= MAX_GATHERED:
            self._write(message)
        elif self._held >= MAX_HELD:
            self.flush()

    def _write(self, message: _Message) -> None:
        if message.held:
            held, message.held = message.held, []
            self._held -= len(held)
            self._send(message, held)

    def _send(self, message: _Message, held: Sequence[tuple[Command, AppendToMessage]]) -> None:
        message.wrote_at = self._clock()
        message.answered_at = None
        first, append = held[0]
        if len(held) == 1:
            self._alone[first.ticket] = message
            self._start(first)
            return
        appends = tuple(one for _, command in held for one in command.appends)
        joined = replace(append, appends=appends)
        self._start(Command(first.ticket, joined, tuple(command.ticket for command, _ in held[1:])))

    def _watch(self, key: tuple[str, Ref], delay_s: float) -> None:
        self._timers[key] = asyncio.get_running_loop().call_later(delay_s, self._window_over, key)

    def _window_over(self, key: tuple[str, Ref]) -> None:
        message = self._messages[key]
        left = message.wrote_at + self._window_s - self._clock()
        if left > 0.001:
            # Something else made it leave early.
            self._watch(key, left)
        elif message.held:
            self._write(message)
            self._watch(key, self._window_s)
        else:
            del self._messages[key], self._timers[key]


def _join(one: AppendToMessage, other: AppendToMessage) -> bool:
    return one.author == other.author and one.appends[-1].joins(other.appends[0])
