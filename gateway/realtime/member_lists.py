"""Sends the presence members of a socket's channels: behind ATTACHED, and again when asked (section 8.4)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from gateway.fanout.delivery import encode_websocket
from gateway.fanout.presence_frames import sync_frames
from gateway.fanout.start import SubscriptionStart
from gateway.realtime.gate import Gate
from gateway.realtime.watched import Watched
from selfhost_transport.errors import ErrorInfo, TransportError
from selfhost_transport.store.presence import PresenceStore
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.message import Format

logger = logging.getLogger(__name__)

_SYNC_REST: Final = 3.0
"""Rest between two sendings of the members, as a multiple of how long one takes."""


class MemberLists:
    """Member lists of one socket. `disconnect` sends the client away."""

    __slots__ = ("_disconnect", "_fmt", "_presence", "_room")

    def __init__(self, presence: PresenceStore, fmt: Format, disconnect: Callable[[ErrorInfo], None]) -> None:
        self._presence = presence
        self._fmt = fmt
        self._disconnect = disconnect
        # Shut while a list waits for the socket.
        self._room = Gate()

    def drained(self) -> None:
        """The socket has room again, or is gone."""
        self._room.open()

    async def precede(self, watched: Watched, start: SubscriptionStart) -> None:
        """Have ATTACHED followed by the members, read now: at or after the subscription's position (section 8.4)."""
        if not watched.subscription.presence:
            return
        members = await self._presence.members(watched.session)
        if members:
            start.attached = replace(start.attached, presence=True)
            variant = watched.subscription.variant
            frames = sync_frames(variant.channel, members)
            start.preface += [encode_websocket(frame, variant.fmt) for frame in frames]

    def is_sending(self, watched: Watched) -> bool:
        """Whether a channel's members are being sent; that is followed by one more send then."""
        if watched.syncing:
            watched.sync_again = True
            return True
        watched.syncing = True
        return False

    async def keep_sending(self, channel: str, watched: Watched) -> None:
        """Send the members as a new sequence of SYNC frames, again while that was asked for."""
        try:
            wanted = True
            while wanted:
                watched.sync_again = False
                began = time.monotonic()
                await self._send(channel, watched)
                wanted = watched.sync_again and not watched.ended
                if wanted:
                    # Many members are much work: the others' turn is longer than this one's.
                    await asyncio.sleep(_SYNC_REST * (time.monotonic() - began))
        finally:
            watched.syncing = False

    async def _send(self, channel: str, watched: Watched) -> None:
        try:
            members = await self._presence.members(watched.session)
        except TransportError as error:
            # The client waits for a SYNC that was announced: only a new attach ends that.
            logger.warning("presence.sync_failed session=%s error=%s", watched.session, error)
            self._disconnect(
                error_info(Code.DISCONNECTED, "presence could not be read; reconnect and resume")
            )
            return
        for frame in sync_frames(channel, members):
            # Others continue in between.
            await asyncio.sleep(0)
            while not watched.ended and watched.subscription.outlet.congested:
                self._room.shut()
                await self._room.passed()
            if watched.ended:
                return
            watched.subscription.write(encode_websocket(frame, self._fmt))
