"""Learns from the Sentinels at once that another server is primary: a planned fail-over closes no connection.

Until the old primary is demoted, which takes Sentinel up to ten seconds, that server continues acknowledging
writes that will be dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

from selfhost_transport.errors import StoreUnavailable
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.address_resolver import Sentinels
from selfhost_transport.redis_io.link import Link, pack

logger = logging.getLogger(__name__)

_CHANNEL: Final = b"+switch-master"
_TIMEOUT_S: Final = 2.0
_RETRY_S: Final = 1.0


class Switches:
    """Listens to every Sentinel while it runs; `on_switch` is called with the new primary."""

    def __init__(self, where: Sentinels, on_switch: Callable[[], None]) -> None:
        self._where = where
        self._on_switch = on_switch
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Once there is a loop; further calls do nothing."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [
                loop.create_task(self._listen(sentinel), name="redis-switches")
                for sentinel in self._where.sentinels
            ]

    async def close(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self, sentinel: Address) -> None:
        while True:
            with contextlib.suppress(
                StoreUnavailable
            ):  # looking up the primary reports that no Sentinel answers
                await self._listen_until_lost(sentinel)
            await asyncio.sleep(_RETRY_S)  # paces reconnecting

    async def _listen_until_lost(self, sentinel: Address) -> None:
        lost = asyncio.Event()

        def on_lost(error: Exception | None) -> None:
            lost.set()

        link = await Link.open(sentinel, self._on_reply, on_lost, _TIMEOUT_S)
        try:
            link.write([pack(("SUBSCRIBE", _CHANNEL))])
            await lost.wait()
        finally:
            link.close()

    def _on_reply(self, reply: Any) -> None:
        """`<service> <old host> <old port> <new host> <new port>`; each Sentinel says it."""
        if not isinstance(reply, list) or len(reply) != 3 or reply[0] != b"message":
            return
        words = reply[2].decode(errors="replace").split(" ")
        mine = len(words) == 5 and words[0] == self._where.service and words[4].isdecimal()
        if mine and self._where.announce(words[3], int(words[4])):
            logger.warning("redis.primary_switched service=%s to=%s:%s", words[0], words[3], words[4])
            self._on_switch()
