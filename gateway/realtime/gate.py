"""A gate for tasks that hardly ever have to wait."""

from __future__ import annotations

import asyncio


class Gate:
    """Open until it is shut. Unlike an `asyncio.Event` it costs nothing while it is open: a connection has several."""

    __slots__ = ("_opening",)

    def __init__(self) -> None:
        # There while it is shut.
        self._opening: asyncio.Event | None = None

    @property
    def is_open(self) -> bool:
        """Whether the gate is open."""
        return self._opening is None

    def shut(self) -> None:
        """Close the gate."""
        if self._opening is None:
            self._opening = asyncio.Event()

    def open(self) -> None:
        """Open the gate."""
        if self._opening is not None:
            self._opening.set()
            self._opening = None

    async def passed(self) -> None:
        """Returns once it is open."""
        while self._opening is not None:
            await self._opening.wait()
