"""The current states of messages, for subscriptions to which a delta would make no sense (section 7.4)."""

from __future__ import annotations

import logging
from typing import Protocol

from gateway.background import Background
from gateway.fanout.delivery import Aggregate, Variant
from selfhost_transport.errors import TransportError
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.history import HistoryReader
from selfhost_transport.wire.serial import Position, parse_position

logger = logging.getLogger(__name__)

Encoded = dict[tuple[Variant, Position], bytes]
"""Frames of one state, by what they depend on: the variant, and the position of the entry that they answer."""


class Waiter(Protocol):
    """A subscription that waits for a message's state."""

    def take_state(self, ref: Ref, state: Aggregate | None, encoded: Encoded) -> None:
        """The state, None for a message that is gone. Frames are added to `encoded`, for others to use."""

    def state_failed(self) -> None:
        """It could not be read."""


class CurrentStates:
    """Reads the states that subscriptions of one session wait for: each message once for all that wait together."""

    __slots__ = ("_history", "_session", "_tasks", "_waiting")

    def __init__(self, history: HistoryReader, session: str, tasks: Background) -> None:
        self._history = history
        self._session = session
        self._tasks = tasks
        self._waiting: dict[Ref, list[Waiter]] = {}

    def want(self, ref: Ref, waiter: Waiter) -> None:
        """Read a message for a subscription, soon."""
        waiting = self._waiting.get(ref)
        if waiting is not None:
            waiting.append(waiter)
            return
        self._waiting[ref] = [waiter]
        self._tasks.start(self._read(ref))

    async def _read(self, ref: Ref) -> None:
        # A later waiter awaits a later entry, which this read may not contain.
        waiting = self._waiting.pop(ref)
        state: Aggregate | None = None
        try:
            found = await self._history.messages(self._session, [ref])
            if found and found[0].version is not None:
                state = Aggregate(ref, found[0], parse_position(found[0].version.serial)[0])
        except TransportError as error:
            logger.warning("session.aggregate_failed session=%s error=%s", self._session, error)
            for waiter in waiting:
                waiter.state_failed()
            return
        encoded: Encoded = {}
        for waiter in waiting:
            waiter.take_state(ref, state, encoded)
