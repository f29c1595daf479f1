"""A listener and a transport for tests of sockets without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.realtime.gate import Gate


class Ear:
    """Keeps what a websocket's owner receives. Shut `gate` to make it busy."""

    def __init__(self) -> None:
        self.heard: list[str | bytes] = []
        self.gate = Gate()
        self.on_message: Callable[[str | bytes], None] = lambda raw: None

    @property
    def busy(self) -> bool:
        return not self.gate.is_open

    async def ready(self) -> None:
        await self.gate.passed()

    def receive(self, raw: str | bytes) -> None:
        self.heard.append(raw)
        self.on_message(raw)

    def too_large(self) -> None:
        self.heard.append("(too large)")

    def congested(self) -> None:
        self.heard.append("(full)")

    def drained(self) -> None:
        self.heard.append("(room)")

    def ended(self) -> None:
        self.heard.append("(end)")


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.writes = 0
        self.reading = False
        self.state = "open"

    def write(self, data: Any) -> None:
        self.writes += 1
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"
