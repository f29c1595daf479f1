"""Notices when what Redis had is gone while the connections to it stay up: FLUSHALL, FLUSHDB, eviction, lost writes.

Nothing announces that. Without a periodic check, clients would wait without end on a session that does not exist
any more (P7).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from gateway.services import Services
from selfhost_transport.errors import TransportError

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
SESSIONS_PER_LOOK: Final = 200
"""Sessions without news that are compared with Redis at once: one GET each."""


async def watch_store(services: Services) -> None:
    """Until cancelled. Redis being away is survived: the connections notice that themselves."""
    while True:
        await asyncio.sleep(LOOK_S)  # the clock of the looks
        try:
            if await services.restore_secret():
                logger.error(
                    "redis.emptied prefix=%s: all sessions are gone; clients get a discontinuity",
                    services.settings.redis.prefix,
                )
                services.hub.reconnected()
                services.revocations.reload()
                services.board.repeat()
            differing = await services.hub.look_at_quiet(SESSIONS_PER_LOOK)
            if differing:
                logger.warning("session.differs sessions=%d", differing)
        except TransportError as error:
            logger.debug("redis.not_looked_at error=%s", error)
