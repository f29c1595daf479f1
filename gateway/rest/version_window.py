"""One page of a message's versions, which are read from the oldest on: bounded in number and in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from selfhost_transport.store.history import MAX_PAGE_BYTES
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.sizes import data_size


class VersionWindow:
    """Keeps the `limit` versions that follow the first `at` of `total`, in the direction of reading.

    There are fewer when they have too many bytes, but one at least.
    """

    def __init__(
        self, at: int, limit: int, total: int, *, forwards: bool, max_bytes: int = MAX_PAGE_BYTES
    ) -> None:
        self._forwards = forwards
        self._first, self._last = (at, at + limit) if forwards else (total - at - limit, total - at)
        self._max_bytes = max_bytes
        self._kept: deque[Message] = deque()
        self._size = self._seen = 0
        # Forwards nothing is kept after the first that was too much.
        self._full = False

    def take(self, versions: Sequence[Message]) -> None:
        """The versions that follow those before, oldest first."""
        for version in versions:
            if self._first <= self._seen < self._last:
                self._keep(version)
            self._seen += 1

    @property
    def page(self) -> list[Message]:
        """The page, in the direction of reading."""
        return list(self._kept) if self._forwards else list(self._kept)[::-1]

    def _keep(self, version: Message) -> None:
        size = data_size(version.data)
        if self._forwards:
            self._full = self._full or bool(self._kept and self._size + size > self._max_bytes)
            if self._full:
                return
        self._kept.append(version)
        self._size += size
        while self._size > self._max_bytes and len(self._kept) > 1:
            self._size -= data_size(self._kept.popleft().data)
