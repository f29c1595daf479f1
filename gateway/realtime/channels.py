"""The channels of one websocket: joins and leaves feeds as the connection's core wants (protocol section 5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gateway.background import Background
from gateway.commands.commands import Done
from gateway.fanout.delivery import Variant
from gateway.fanout.deltas import DeltaWriter
from gateway.fanout.selection import MUTE_ALL
from gateway.fanout.subscription import AttachResult, Gap, Subscription
from gateway.realtime.connection import Connection
from gateway.realtime.effects import Adjust, Attach, Command, Effect
from gateway.realtime.member_lists import MemberLists
from gateway.realtime.replies_first import RepliesFirst, wait_for_entries
from gateway.realtime.watched import Watched
from gateway.services import Services
from gateway.websocket.upgrade import SocketOutlet
from selfhost_transport.errors import ErrorInfo, ServiceError, TransportError
from selfhost_transport.wire.actions import Flag
from selfhost_transport.wire.channel import ChannelParams
from selfhost_transport.wire.message import Format
from selfhost_transport.wire.serial import format_position

logger = logging.getLogger(__name__)

_LISTENING = Flag.SUBSCRIBE | Flag.PRESENCE_SUBSCRIBE | Flag.PRESENCE | Flag.ANNOTATION_SUBSCRIBE
"""Modes with which anything is delivered: messages, all members or one's own, annotations."""


class SocketChannels:
    """What a socket watches. `carry_out` takes what the core wants done; `disconnect` sends the client away."""

    __slots__ = (
        "_background",
        "_carry_out",
        "_core",
        "_fmt",
        "_member_lists",
        "_mute",
        "_replies",
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
        self._mute = None if echo else core.connection_id
        self._watched: dict[str, Watched] = {}
        # Attachments and member lists on their way from the store.
        self.being_read = 0
        self._member_lists = MemberLists(services.presence, fmt, disconnect)
        self._replies = RepliesFirst(core)

    def drained(self) -> None:
        """The socket has room again."""
        self._member_lists.drained()
        for watched in self._watched.values():
            if watched.feed is not None:
                watched.subscription.drained()

    def __len__(self) -> int:
        return len(self._watched)

    def attach(self, effect: Attach) -> None:
        """Begin to join; the core hears of it once that is done. Raises RuntimeError before the socket is open."""
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
        client_id = self._core.credential.identity.client_id
        watched = Watched(effect.channel.name, subscription, effect.modes, effect.params.occupancy, client_id)
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

    async def _join(self, effect: Attach, watched: Watched) -> None:
        full, name = effect.channel.full, effect.channel.name
        services = self._services
        try:
            if services.hub.feed(name) is None:
                await services.limits.admit_session(
                    self._core.credential, lambda: services.sessions.exists(name)
                )
            feed = await services.hub.join(name, watched.subscription)
            watched.feed = feed
            if watched.ended:
                self._services.hub.leave(feed, watched.subscription)
                return
            start = await self._services.hub.start_of(
                feed, watched.subscription, effect.resume_from, effect.params.rewind
            )
            await self._member_lists.precede(watched, start)
        except TransportError as error:
            self._failed(full, watched, error)
            return
        except Exception:
            # What is in Redis may be anything: no client waits for an answer that does not come.
            logger.exception("gateway.attach_failed channel=%r", name)
            self._failed(full, watched, ServiceError("internal error; try again"))
            return
        if not watched.ended:
            watched.start = start
            self._carry_out(self._core.attach_ready(full, start.attached))

    def _failed(self, full: str, watched: Watched, error: TransportError) -> None:
        if not watched.ended:
            self._carry_out(self._core.attach_failed(full, error.info))

    def deliver(self, channel: str) -> None:
        """ATTACHED was sent: what follows it, and everything from then on."""
        watched = self._watched[channel]
        if watched.feed is None or watched.start is None:
            raise RuntimeError("cannot deliver to a subscription without a start position")
        start, watched.start = watched.start, None
        watched.count(self._services.board, watched.modes)
        if not watched.modes & _LISTENING:
            watched.feed.remove(watched.subscription)
            return
        for frame in start.preface:
            watched.subscription.write(frame)
        watched.subscription.release(start.backlog)
        watched.report(self._services.board, watched.occupancy)

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
        # Who gets what has changed.
        watched.feed.give_up_path()
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
            serial = format_position(position, watched.feed.epoch)
            attached = AttachResult(serial, resumed=effect.resumed, presence=subscription.presence)
            self._carry_out(self._core.adjusted(effect.channel, attached))
        if anew:
            subscription.release()
        watched.count(self._services.board, effect.modes)
        watched.report(self._services.board, effect.params.occupancy)

    def _on_gap(self, channel: str, gap: Gap) -> None:
        watched = self._watched.get(channel)
        if watched is not None and gap.is_end:
            self._carry_out(self._core.channel_ended(channel, gap.error))
        elif watched is not None and watched.feed is not None:
            serial = format_position(gap.position, watched.feed.epoch)
            attached = AttachResult(serial, error=gap.error, presence=watched.subscription.presence)
            self._carry_out(self._core.adjusted(channel, attached))

    def detach(self, channel: str) -> None:
        """Stop delivering at once."""
        watched = self._watched.pop(channel, None)
        if watched is None:
            return
        watched.ended = True
        if watched.feed is not None:
            self._services.hub.leave(watched.feed, watched.subscription)
            watched.count(self._services.board, None)
            watched.report(self._services.board, None)

    def detach_all(self) -> None:
        """Stop delivering anything."""
        self._member_lists.drained()
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

    def sync(self, channel: str) -> None:
        """Send the members again. Requests during that are answered by one more send."""
        watched = self._watched.get(channel)
        if watched is not None and not self._member_lists.is_sending(watched):
            self._read(self._member_lists.keep_sending(channel, watched))

    def hold_back(self, command: Command) -> None:
        """Keep a session's entries back until its turn's input is acknowledged."""
        self._replies.hold_back(command, self._watched.values())

    def proceed(self, done: Done | None = None) -> None:
        """Let entries follow the replies that have left; behind further ones that are owed, those up to `done`."""
        self._replies.proceed(done)

    async def wait_for_entries(self, done: Done) -> None:
        """Wait, bounded, until everything that has to leave this socket before the answer has (P2)."""
        await wait_for_entries(done, self._watched.values())
