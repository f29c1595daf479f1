"""The way out of a subscription whose reader pulls: an HTTP response that is written as fast as it is read."""

from __future__ import annotations

import asyncio

from gateway.auth.authenticator import Credential, now_ms
from gateway.services import Services
from selfhost_transport.errors import ErrorInfo, TransportError
from selfhost_transport.wire.codes import Code, error_info

MAX_WAITING_BYTES = 1_048_576
KEEPALIVE_S = 15.0


class PullOutlet:
    """Encoded frames or events that wait for a reader."""

    __slots__ = (
        "_deadline", "_is_awake", "_size", "_timer", "_waiter", "_waiting", "congested", "ended", "waited_in_vain",
    )  # fmt: skip

    def __init__(self) -> None:
        self.congested = False
        # The gateway stops: what has arrived is the last.
        self.ended = False
        # Whether the last `take` waited in vain.
        self.waited_in_vain = False
        self._waiting: list[bytes] = []
        self._size = 0
        self._is_awake = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        # One for many waits: it looks again if it comes too early.
        self._timer: asyncio.TimerHandle | None = None

    def write(self, frame: bytes) -> None:
        """Take one."""
        self._waiting.append(frame)
        self._size += len(frame)
        self.congested = self._size > MAX_WAITING_BYTES
        self.wake()

    def wake(self) -> None:
        """Let the reader look up, though nothing has arrived."""
        self._is_awake = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Let the reader go; it comes back and continues."""
        self.ended = True
        self.wake()

    def close(self) -> None:
        """No one reads any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def take(self, patience_s: float) -> list[bytes]:
        """What has arrived; nothing if that is so for this long, in seconds."""
        self.waited_in_vain = False
        if not self._waiting and not self.ended and not self._is_awake:
            await self._wait(patience_s)
        self._is_awake = False
        taken, self._waiting = self._waiting, []
        self._size = 0
        self.congested = False
        return taken

    async def _wait(self, patience_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter, self._deadline = loop.create_future(), loop.time() + patience_s
        if self._timer is None or self._timer.when() > self._deadline:
            self.close()
            self._timer = loop.call_at(self._deadline, self._look, loop)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if loop.time() < self._deadline:
            self._timer = loop.call_at(self._deadline, self._look, loop)
            return
        self.waited_in_vain = True
        self._waiter.set_result(None)


def patience_s(credential: Credential) -> float:
    """How long a silent stream waits before it says that it lives, in seconds; not beyond its credentials' end."""
    if credential.expires_ms is None:
        return KEEPALIVE_S
    return min(KEEPALIVE_S, max(0.0, (credential.expires_ms - now_ms()) / 1000))


def refusal(services: Services, credential: Credential) -> ErrorInfo | None:
    """Why a caller may not read on; None while it may."""
    if credential.expires_ms is not None and credential.expires_ms <= now_ms():
        return error_info(Code.TOKEN_EXPIRED)
    try:
        services.revocations.check(credential)
    except TransportError as error:
        return error.info
    return None
