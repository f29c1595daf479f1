"""The parts of web push that run in a gateway; nothing where it is not configured."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from gateway.background import Background
from gateway.push.announcer import PushAnnouncer
from gateway.push.sender import PushSender
from gateway.services import Services
from selfhost_transport.errors import TransportError

logger = logging.getLogger(__name__)

_AGAIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Pushes:
    """Use `start` once the gateway serves."""

    announcer: PushAnnouncer | None = None
    sender: PushSender | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, services: Services) -> Pushes:
        """Those of a gateway. Raises InvalidArgument without the package of the extra `push`."""
        settings, stores = services.settings, services.stores
        if settings.push.private_key is None:
            return cls()
        sender = PushSender(settings, stores.push, stores.occupancy, services.revocations, services.metrics)
        return cls(PushAnnouncer(settings, stores.push), sender)

    def start(self, background: Background) -> None:
        """Run until the owner of the tasks ends."""
        if self.announcer is None or self.sender is None:
            return
        background.start(self.announcer.queue_all())
        background.start(self.sender.deliver_all())
        background.start(self._remove_revoked(self.sender))
        # What was revoked while no gateway ran.
        self.revoked()

    def revoked(self) -> None:
        """Credentials were revoked: look which subscriptions that ends."""
        self._changed.set()

    async def _remove_revoked(self, sender: PushSender) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await sender.remove_revoked()
            except TransportError as error:
                logger.warning("push.store_failed error=%s", error)
                self._changed.set()
                await asyncio.sleep(_AGAIN_S)  # paces trying while Redis is away
