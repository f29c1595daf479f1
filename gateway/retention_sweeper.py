"""Has messages taken out of histories when their retention is over (HIS-6)."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from selfhost_transport.errors import TransportError
from selfhost_transport.store.retention import Retention

logger = logging.getLogger(__name__)

SWEEP_S: Final = 1.0
"""How often it is looked; how much longer than asked for messages may be kept."""


async def sweep_retention(retention: Retention) -> None:
    """Until cancelled. One of all gateways does it; Redis being away is survived."""
    while True:
        try:
            taken = await retention.sweep() if await retention.falls_to_me() else 0
            if taken:
                logger.info("retention.swept publishes=%d", taken)
        except TransportError as error:
            logger.warning("retention.sweep_failed error=%s", error)
        await asyncio.sleep(SWEEP_S)  # the clock of the sweep
