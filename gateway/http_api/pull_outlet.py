"""The way out of a subscription whose reader pulls: an HTTP response that is written as fast as it is read."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from gateway.auth.authenticator import Credential, now_ms
from gateway.services import Services
from selfhost_transport.errors import ErrorInfo, TransportError
from selfhost_transport.wire.codes import Code, error_info

MAX_WAITING_BYTES = 1_048_576
KEEPALIVE_S = 15.0


class PullOutlet:
    """Encoded frames or events that wait for a reader."""

    def __init__(self) -> None:
        self.congested = False
        # The gateway stops: what has arrived is the last.
        self.ended = False
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._arrived = asyncio.Event()

    def write(self, frame: bytes) -> None:
        """Take one."""
        self._waiting.append(frame)
        self._size += len(frame)
        self.congested = self._size > MAX_WAITING_BYTES
        self._arrived.set()

    def wake(self) -> None:
        """Let the reader look up, though nothing has arrived."""
        self._arrived.set()

    def end(self) -> None:
        """Let the reader go; it comes back and continues."""
        self.ended = True
        self._arrived.set()

    async def take(self, patience_s: float) -> list[bytes]:
        """What has arrived; nothing if that is so for this long, in seconds."""
        if not self._waiting and not self.ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._arrived.wait()
        self._arrived.clear()
        taken = list(self._waiting)
        self._waiting.clear()
        self._size = 0
        self.congested = False
        return taken


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
