"""The channels of one websocket: joins and leaves feeds as the connection's core wants (protocol section 5)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from gateway.background import Background
from gateway.commands.commands import Done, woken_session
from gateway.fanout.delivery import Variant, encode_websocket
from gateway.fanout.deltas import DeltaWriter
from gateway.fanout.feed import SessionFeed
from gateway.fanout.occupancy import OccupancyEvents
from gateway.fanout.presence_frames import sync_frames
from gateway.fanout.selection import MUTE_ALL
from gateway.fanout.start import Start
from gateway.fanout.subscription import Attached, Gap, Subscription
from gateway.realtime.connection import Connection
from gateway.realtime.effects import Adjust, Attach, Command, Effect
from gateway.realtime.gate import Gate
from gateway.services import Services
from gateway.websocket.upgrade import SocketOutlet
from selfhost_transport.errors import ErrorInfo, TransportError
from selfhost_transport.wire.actions import Flag
from selfhost_transport.wire.channel import ChannelParams
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.message import Format
from selfhost_transport.wire.serial import format_position

logger = logging.getLogger(__name__)

SETTLE_TIMEOUT_S = 1.0
_SYNC_REST = 3.0
"""Rest between two sendings of the members, as a multiple of how long one takes."""
_LISTENING = Flag.SUBSCRIBE | Flag.PRESENCE_SUBSCRIBE | Flag.PRESENCE | Flag.ANNOTATION_SUBSCRIBE
"""Modes with which anything is delivered: messages, all members or one's own, annotations."""


class _Watched:
    """A subscription with the feed it belongs to, once it has one, and what ATTACHED is followed by."""

    __slots__ = (
        "counted",
        "feed",
        "modes",
        "occupancy",
        "session",
        "start",
        "subscription",
        "sync_again",
        "syncing",
        "telling",
    )

    def __init__(self, session: str, subscription: Subscription, modes: Flag, occupancy: str | None) -> None:
        self.session = session
        self.subscription = subscription
        self.modes = modes
        self.feed: SessionFeed | None = None
        self.start: Start | None = None
        # The modes it counts with in the session's occupancy.
        self.counted: Flag | None = None
        # Its subscription to occupancy events, and how to end it.
        self.occupancy = occupancy
        self.telling: Callable[[], None] | None = None
        # Its members are being sent; they were asked for once more meanwhile.
        self.syncing = self.sync_again = False


class SocketChannels:
    """What a socket watches. `carry_out` takes what the core wants done; `disconnect` sends the client away."""

    __slots__ = (
        "_background",
        "_carry_out",
        "_core",
        "_disconnect",
        "_fmt",
        "_mute",
        "_paused",
        "_room",
        "_services",
        "_watched",
        "being_read",
        "outlet",
    )

    def __init__(
        self,
        services: Services,
        core: Connection,
        fmt: Format,
        background: Background,
        carry_out: Callable[[Sequence[Effect]], None],
        disconnect: Callable[[ErrorInfo], None],
        *,
        echo: bool,
    ) -> None:
        # Set once the socket is open.
        self.outlet: SocketOutlet | None = None
        self._services = services
        self._core = core
        self._fmt = fmt
        self._background = background
        self._carry_out = carry_out
        self._disconnect = disconnect
        self._mute = None if echo else core.connection_id
        self._watched: dict[str, _Watched] = {}
        # Attachments and member lists on their way from the store.
        self.being_read = 0
        # Shut while a list of members waits for the socket.
        self._room = Gate()
        # Subscriptions that wait for the answer to a ticket, oldest first.
        self._paused: deque[tuple[int, Subscription]] = deque()

    def drained(self) -> None:
        """The socket has room again."""
        self._room.open()
        for watched in self._watched.values():
            if watched.feed is not None:
                watched.subscription.drained()

    def __len__(self) -> int:
        return len(self._watched)

    def attach(self, effect: Attach) -> None:
        """Begin to join; the core is notified once that is done. Raises RuntimeError before the socket is open."""
        full = effect.channel.full
        subscription = Subscription(
            self._opened(),
            self._variant(effect),
            lambda gap: self._on_gap(full, gap),
            mute=self._muted(effect.modes, effect.params),
            presence=bool(effect.modes & Flag.PRESENCE_SUBSCRIBE),
            annotations=bool(effect.modes & Flag.ANNOTATION_SUBSCRIBE),
            connection_id=self._core.connection_id,
        )
        subscription.write = self._writer(effect.params)
        watched = _Watched(effect.channel.name, subscription, effect.modes, effect.params.occupancy)
        self._watched[full] = watched
        self._read(self._join(effect, watched))

    def _read(self, work: Coroutine[Any, Any, None]) -> None:
        """Start something that reads from the store; so much of it may be under way (`being_read`)."""
        self.being_read += 1
        self._background.start(self._counted(work))

    async def _counted(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            self.being_read -= 1
            # There is room for more, whatever the outcome.
            self._carry_out(())

    async def _join(self, effect: Attach, watched: _Watched) -> None:
        full, name = effect.channel.full, effect.channel.name
        services = self._services
        try:
            if services.hub.feed(name) is None:
                await services.limits.admit_session(
                    self._core.credential, lambda: services.sessions.exists(name)
                )
            feed = await services.hub.join(name, watched.subscription)
            watched.feed = feed
            if self._watched.get(full) is not watched:
                self._services.hub.leave(feed, watched.subscription)
                return
            start = await self._services.hub.start_of(
                feed, watched.subscription, effect.resume_from, effect.params.rewind
            )
            await self._add_members(watched, start)
        except TransportError as error:
            if self._watched.get(full) is watched:
                self._carry_out(self._core.attach_failed(full, error.info))
            return
        if self._watched.get(full) is watched:
            watched.start = start
            self._carry_out(self._core.attach_ready(full, start.attached))

    def deliver(self, channel: str) -> None:
        """ATTACHED was sent: what follows it, and everything from then on."""
        watched = self._watched[channel]
        if watched.feed is None or watched.start is None:
            raise RuntimeError("cannot deliver to a subscription without a start position")
        start, watched.start = watched.start, None
        self._count(watched, watched.modes)
        if not watched.modes & _LISTENING:
            watched.feed.remove(watched.subscription)
            return
        for frame in start.preface:
            watched.subscription.write(frame)
        watched.subscription.release(start.backlog)
        self._tell_occupancy(watched, watched.occupancy)

    def adjust(self, effect: Adjust) -> None:
        """Other modes or params for a subscription, in place."""
        watched = self._watched[effect.channel]
        if watched.feed is None:
            return
        gained, lost = effect.modes & ~watched.modes, watched.modes & ~effect.modes
        watched.modes = effect.modes
        subscription = watched.subscription
        subscription.mute = self._muted(effect.modes, effect.params)
        # A client that attaches again gets the next message whole.
        subscription.write = self._writer(effect.params)
        subscription.presence = bool(effect.modes & Flag.PRESENCE_SUBSCRIBE)
        subscription.annotations = bool(effect.modes & Flag.ANNOTATION_SUBSCRIBE)
        if lost and not effect.modes & _LISTENING:
            watched.feed.remove(subscription)
        variant = subscription.variant
        whole = effect.params.append_full or variant.filter is not None
        if (effect.hidden, whole) != (variant.hidden, variant.whole):
            watched.feed.show_as(subscription, variant._replace(hidden=effect.hidden, whole=whole))
        anew = bool(gained & _LISTENING)
        if anew:
            # It has not seen what it could not receive before.
            watched.feed.remove(subscription)
            subscription.seen.clear()
            watched.feed.add(subscription)
        if effect.answer:
            position = subscription.position
            serial = format_position(position, watched.feed.series)
            attached = Attached(serial, resumed=effect.resumed, presence=subscription.presence)
            self._carry_out(self._core.adjusted(effect.channel, attached))
        if anew:
            subscription.release()
        self._count(watched, effect.modes)
        self._tell_occupancy(watched, effect.params.occupancy)

    def _on_gap(self, channel: str, gap: Gap) -> None:
        watched = self._watched.get(channel)
        if watched is not None and watched.feed is not None:
            serial = format_position(gap.position, watched.feed.series)
            attached = Attached(serial, error=gap.error, presence=watched.subscription.presence)
            self._carry_out(self._core.adjusted(channel, attached))

    def detach(self, channel: str) -> None:
        """Stop delivering at once."""
        watched = self._watched.pop(channel, None)
        if watched is not None and watched.feed is not None:
            self._services.hub.leave(watched.feed, watched.subscription)
            self._count(watched, None)
            self._tell_occupancy(watched, None)

    def _count(self, watched: _Watched, modes: Flag | None) -> None:
        """Have a subscription counted by its modes; None: it is gone."""
        if watched.counted != modes:
            self._services.board.count(watched.session, watched.counted, modes)
            watched.counted = modes

    def _tell_occupancy(self, watched: _Watched, wanted: str | None) -> None:
        """Begin, change or end telling a subscription who else is there: the param `occupancy` (section 14.4)."""
        if not watched.modes & Flag.SUBSCRIBE:
            wanted = None
        if watched.telling is not None and watched.occupancy == wanted:
            return
        watched.occupancy = wanted
        if watched.telling is not None:
            watched.telling()
            watched.telling = None
        if wanted is not None and watched.feed is not None:
            events = OccupancyEvents(watched.subscription, wanted)
            watched.telling = self._services.board.watch(watched.session, events.tell)

    def detach_all(self) -> None:
        """Stop delivering anything."""
        self._room.open()
        for channel in list(self._watched):
            self.detach(channel)

    def _variant(self, effect: Attach) -> Variant:
        channel = effect.channel
        whole = effect.params.append_full or channel.filter is not None
        return Variant(self._fmt, channel.full, effect.hidden, whole, channel.filter)

    def _opened(self) -> SocketOutlet:
        if self.outlet is None:
            raise RuntimeError("cannot attach a channel before the socket is open")
        return self.outlet

    def _writer(self, params: ChannelParams) -> Callable[[bytes], None]:
        """How a subscription's frames are written."""
        write = self._opened().write
        return DeltaWriter(write, self._fmt).write if params.delta else write

    def _muted(self, modes: Flag, params: ChannelParams) -> str | None:
        """Whose messages are not delivered to a subscription."""
        if not modes & Flag.SUBSCRIBE:
            return MUTE_ALL
        return self._mute if params.echo else self._core.connection_id

    async def _add_members(self, watched: _Watched, start: Start) -> None:
        """Have ATTACHED followed by the members, read now: at or after the subscription's position (section 8.4)."""
        if not watched.subscription.presence:
            return
        members = await self._services.presence.members(watched.session)
        if members:
            start.attached = replace(start.attached, presence=True)
            variant = watched.subscription.variant
            frames = sync_frames(variant.channel, members)
            start.preface += [encode_websocket(frame, variant.fmt) for frame in frames]

    def sync(self, channel: str) -> None:
        """Send the members again. Requests during that are answered by one more send."""
        watched = self._watched.get(channel)
        if watched is None:
            return
        if watched.syncing:
            watched.sync_again = True
            return
        watched.syncing = True
        self._read(self._keep_sending_members(channel, watched))

    async def _keep_sending_members(self, channel: str, watched: _Watched) -> None:
        try:
            wanted = True
            while wanted:
                watched.sync_again = False
                began = time.monotonic()
                await self._send_members(channel, watched)
                wanted = watched.sync_again and self._watched.get(channel) is watched
                if wanted:
                    # Many members are much work: the others' turn is longer than this one's.
                    await asyncio.sleep(_SYNC_REST * (time.monotonic() - began))
        finally:
            watched.syncing = False

    async def _send_members(self, channel: str, watched: _Watched) -> None:
        try:
            members = await self._services.presence.members(watched.session)
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
            while self._watched.get(channel) is watched and watched.subscription.outlet.congested:
                self._room.shut()
                await self._room.passed()
            if self._watched.get(channel) is not watched:
                return
            watched.subscription.write(encode_websocket(frame, self._fmt))

    def answer_first(self, command: Command) -> None:
        """Keep a session's entries back until its turn's input is acknowledged.

        A fast agent may have answered before the ACK is in flight, and the SDK's ChatTransport receives the answer
        only from then on.
        """
        session = woken_session(command.operation)
        if session is None:
            return
        for watched in self._watched.values():
            if watched.session == session and watched.feed is not None:
                watched.subscription.pause()
                self._paused.append((command.ticket, watched.subscription))

    def proceed(self, done: Done | None = None) -> None:
        """Let entries follow the answers that have left; behind further ones that are owed, those up to `done`."""
        while self._paused and not self._core.has_pending(self._paused[0][0]):
            _, subscription = self._paused.popleft()
            if done is not None and done.series == subscription.series:
                subscription.clear(done.position)
            subscription.proceed()

    async def settle(self, done: Done) -> None:
        """Wait, bounded, until everything before a cancel has been written to this socket (P2)."""
        if done.settled_at is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                for watched in list(self._watched.values()):
                    if watched.feed is not None and watched.feed.series == done.series:
                        await watched.feed.passed(done.settled_at)
                        watched.subscription.clear(done.settled_at)
                        await watched.subscription.caught_up(done.settled_at)
