"""One websocket: runs a connection's core, carries its effects out, keeps its timers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.attachment import EVERYBODY, Attachment, Gap
from gateway.auth import Credential, now_ms
from gateway.background import Background
from gateway.callers import RequestInfo
from gateway.commits import Commits
from gateway.connection import Connection, Phase
from gateway.delivery import Variant, encode_websocket
from gateway.effects import (
    Adjust,
    Attach,
    Attached,
    Authenticate,
    CloseSocket,
    Commit,
    Deliver,
    Detach,
    Effect,
    SendFrame,
    Sync,
)
from gateway.operations import Done, woken_session
from gateway.presence import sync_frames
from gateway.rollup import DEFAULT_WINDOW_MS, Rollup
from gateway.services import Services
from gateway.session_feed import SessionFeed
from gateway.session_hub import Start
from gateway.transport import SocketOutlet
from selfhost_transport.errors import BadRequest, ErrorInfo, StoreUnavailable, TransportError
from selfhost_transport.wire.actions import Action, Flag
from selfhost_transport.wire.channel import ChannelParams
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.connection_key import issue_connection_key
from selfhost_transport.wire.frame import Frame, decode_frame
from selfhost_transport.wire.message import Format
from selfhost_transport.wire.serial import format_position

logger = logging.getLogger(__name__)

SETTLE_TIMEOUT_S = 1.0
SLOW_READER_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 10.0
RENEW_BEFORE_S = 30.0
TOO_LATE_TO_RENEW_S = 5.5
SHORTEST_RENEWAL_S = 1.0


_LISTENING = Flag.SUBSCRIBE | Flag.PRESENCE_SUBSCRIBE | Flag.PRESENCE
"""Modes with which anything is delivered: messages, all members, or one's own members."""


class _Watched:
    """An attachment with the feed it belongs to, once it has one, and what ATTACHED is followed by."""

    __slots__ = ("attachment", "feed", "modes", "session", "start")

    def __init__(self, session: str, attachment: Attachment, modes: Flag) -> None:
        self.session = session
        self.attachment = attachment
        self.modes = modes
        self.feed: SessionFeed | None = None
        self.start: Start | None = None


class Socket:
    """A connected client. The caller feeds `receive` and calls `lost` when the socket is gone."""

    def __init__(
        self,
        services: Services,
        core: Connection,
        fmt: Format,
        *,
        echo: bool,
        heartbeats: bool,
        info: RequestInfo,
        rollup_ms: int = DEFAULT_WINDOW_MS,
    ) -> None:
        self.core = core
        self.key_issued_ms = now_ms()
        self.heartbeats = heartbeats
        self._services = services
        self._fmt = fmt
        self._mute = None if echo else core.connection_id
        self._info = info
        # Verifies a token that came in-band.
        self._authenticating: asyncio.Task[None] | None = None
        self._outlet: SocketOutlet | None = None
        self._close: Callable[[], None] | None = None
        self._give_up: asyncio.TimerHandle | None = None
        self._readable = asyncio.Event()
        self._readable.set()
        self._background = Background("socket")
        self._watched: dict[str, _Watched] = {}
        # Attachments that wait for the answer to a ticket, oldest first.
        self._paused: deque[tuple[int, SessionFeed, Attachment]] = deque()
        self._timers: list[asyncio.TimerHandle] = []
        self._commits = Commits(
            services.executor, self._background, self._settle, self._committed, self._refused
        )
        self._rollup = Rollup(rollup_ms, self._commits.add)

    def open(self, outlet: SocketOutlet, close: Callable[[], None], error: ErrorInfo | None) -> None:
        """Send CONNECTED and start the clocks. `close` is to close the socket after what was written."""
        self._outlet = outlet
        self._close = close
        self.carry_out(self.core.open(self._new_key(), error))
        if self.core.inherits_members:
            self._background.start(self._inherit())
        self._watch_expiry(self.core.credential)

    async def receive(self, raw: str | bytes) -> None:
        """One message of the socket. Waits while too many operations are on their way."""
        fmt = Format.JSON if isinstance(raw, str) else Format.MSGPACK
        try:
            frame = decode_frame(raw, fmt)
        except BadRequest as error:
            self.carry_out(self.core.receive_malformed(error))
            return
        self.carry_out(self.core.receive(frame))
        if self._authenticating is not None:
            # What follows is judged by the new rights.
            await asyncio.wait({self._authenticating})
            self._authenticating = None
        await self._commits.room()
        # Who does not read its answers is not listened to (P10).
        await self._readable.wait()

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Do what the core wants, in order."""
        for effect in effects:
            match effect:
                case SendFrame(frame):
                    self._send(frame)
                case Commit():
                    self._answer_first(effect)
                    self._rollup.add(effect)
                case Attach():
                    self._attach(effect)
                case Deliver(channel):
                    self._deliver(channel)
                case Adjust():
                    self._adjust(effect)
                case Sync(channel):
                    self._sync(channel)
                case Detach(channel):
                    self._detach(channel)
                case Authenticate(token):
                    self._authenticating = self._background.start(self._authenticate(token))
                case CloseSocket():
                    self._end()

    def heartbeat(self) -> None:
        """Show the client that the connection lives (section 4.3)."""
        if self.core.phase is Phase.CONNECTED and self._readable.is_set():
            self._send(Frame(Action.HEARTBEAT))

    def congested(self) -> None:
        """More waits to be sent than the limit allows: the client has a bounded time to read it (P10)."""
        self._readable.clear()
        loop = asyncio.get_running_loop()
        self._give_up = loop.call_later(SLOW_READER_TIMEOUT_S, self._abandon)

    def drained(self) -> None:
        """The socket has room again."""
        self._readable.set()
        if self._give_up is not None:
            self._give_up.cancel()
        for watched in self._watched.values():
            if watched.feed is not None:
                watched.feed.drained(watched.attachment)

    def disconnect(self, error: ErrorInfo) -> None:
        """Send the client away; it may resume."""
        self.carry_out(self.core.disconnect(error))

    async def lost(self) -> None:
        """The socket is gone: stop delivering, let what was begun in the store finish."""
        self._detach_all()
        self._rollup.close()
        self._readable.set()
        for timer in [*self._timers, *([self._give_up] if self._give_up else [])]:
            timer.cancel()
        await self._background.finish()
        if self.core.has_members:
            await self._services.keeper.lost(self.core.holder)

    async def reclaim_presence(self) -> None:
        """Hold the connection's members again after this process was taken for dead."""
        if not self.core.has_members:
            return
        if not await self._services.presence.claim(self.core.holder):
            # They left. The client enters them again when it comes back.
            self.disconnect(error_info(Code.DISCONNECTED, "presence was lost; reconnect and resume"))

    def _abandon(self) -> None:
        self._services.metrics.slow_readers.inc()
        if self._outlet is not None:
            self._outlet.abort()

    def _end(self) -> None:
        self._detach_all()
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(CLOSE_TIMEOUT_S, self._abandon))
        if self._close is not None:
            self._close()

    def _send(self, frame: Frame) -> None:
        if self._outlet is not None:
            self._outlet.write(encode_websocket(frame, self._fmt))

    # Channels

    def _attach(self, effect: Attach) -> None:
        full = effect.channel.full
        if self._outlet is None:
            raise RuntimeError("a channel cannot be attached before the socket is open")
        attachment = Attachment(
            self._outlet,
            Variant(self._fmt, full),
            lambda gap: self._on_gap(full, gap),
            mute=self._muted(effect.modes, effect.params),
            whole_messages=effect.params.append_full,
            presence=bool(effect.modes & Flag.PRESENCE_SUBSCRIBE),
            connection_id=self.core.connection_id,
        )
        watched = _Watched(effect.channel.name, attachment, effect.modes)
        self._watched[full] = watched
        self._background.start(self._join(effect, watched))

    async def _join(self, effect: Attach, watched: _Watched) -> None:
        full, name = effect.channel.full, effect.channel.name
        try:
            feed = await self._services.hub.join(name, watched.attachment)
            watched.feed = feed
            if self._watched.get(full) is not watched:
                self._services.hub.leave(feed, watched.attachment)
                return
            start = await self._services.hub.start_of(
                feed, watched.attachment, effect.resume_from, effect.params.rewind
            )
            await self._add_members(watched, start)
        except TransportError as error:
            if self._watched.get(full) is watched:
                self.carry_out(self.core.attach_failed(full, error.info))
            return
        if self._watched.get(full) is watched:
            watched.start = start
            self.carry_out(self.core.attach_ready(full, start.attached))

    def _deliver(self, channel: str) -> None:
        watched = self._watched[channel]
        if watched.feed is None or watched.start is None:
            raise RuntimeError("an attachment without a start cannot be delivered to")
        start, watched.start = watched.start, None
        if not watched.modes & _LISTENING:
            watched.feed.remove(watched.attachment)
            return
        for frame in start.preface:
            watched.attachment.write(frame)
        watched.feed.release(watched.attachment, start.backlog)

    def _adjust(self, effect: Adjust) -> None:
        watched = self._watched[effect.channel]
        if watched.feed is None:
            return
        gained, lost = effect.modes & ~watched.modes, watched.modes & ~effect.modes
        watched.modes = effect.modes
        attachment = watched.attachment
        attachment.mute = self._muted(effect.modes, effect.params)
        attachment.whole_messages = effect.params.append_full
        attachment.presence = bool(effect.modes & Flag.PRESENCE_SUBSCRIBE)
        if lost and not effect.modes & _LISTENING:
            watched.feed.remove(attachment)
        anew = bool(gained & _LISTENING)
        if anew:
            # What it could not hear before it has not seen.
            watched.feed.remove(attachment)
            attachment.seen.clear()
            watched.feed.add(attachment)
        if effect.answer:
            position = watched.feed.position_of(attachment)
            serial = format_position(position, watched.feed.series)
            attached = Attached(serial, resumed=effect.resumed, presence=attachment.presence)
            self.carry_out(self.core.adjusted(effect.channel, attached))
        if anew:
            watched.feed.release(attachment)

    def _on_gap(self, channel: str, gap: Gap) -> None:
        watched = self._watched.get(channel)
        if watched is not None and watched.feed is not None:
            serial = format_position(gap.position, watched.feed.series)
            attached = Attached(serial, error=gap.error, presence=watched.attachment.presence)
            self.carry_out(self.core.adjusted(channel, attached))

    def _detach(self, channel: str) -> None:
        watched = self._watched.pop(channel, None)
        if watched is not None and watched.feed is not None:
            self._services.hub.leave(watched.feed, watched.attachment)

    def _detach_all(self) -> None:
        for channel in list(self._watched):
            self._detach(channel)

    # Presence

    def _muted(self, modes: Flag, params: ChannelParams) -> str | None:
        """Whose messages are not delivered to an attachment."""
        if not modes & Flag.SUBSCRIBE:
            return EVERYBODY
        return self._mute if params.echo else self.core.connection_id

    async def _add_members(self, watched: _Watched, start: Start) -> None:
        """Have ATTACHED followed by the members, read now: at or after the attachment's position (section 8.4)."""
        if not watched.attachment.presence:
            return
        members = await self._services.presence.members(watched.session)
        if members:
            start.attached = replace(start.attached, presence=True)
            variant = watched.attachment.variant
            frames = sync_frames(variant.channel, members)
            start.preface += [encode_websocket(frame, variant.fmt) for frame in frames]

    def _sync(self, channel: str) -> None:
        watched = self._watched.get(channel)
        if watched is not None:
            self._background.start(self._send_members(channel, watched))

    async def _send_members(self, channel: str, watched: _Watched) -> None:
        try:
            members = await self._services.presence.members(watched.session)
        except TransportError as error:
            # The client waits for a SYNC that was announced: only a new attach ends that.
            logger.warning("presence.sync_failed session=%s error=%s", watched.session, error)
            self.disconnect(error_info(Code.DISCONNECTED, "presence could not be read; reconnect and resume"))
            return
        if self._watched.get(channel) is watched:
            for frame in sync_frames(channel, members):
                self._send(frame)

    async def _inherit(self) -> None:
        """Hold the members that an earlier socket of this connection entered."""
        try:
            self.core.inherits_members = await self._services.presence.claim(self.core.holder)
        except TransportError as error:
            # The client enters its members again once it has attached.
            logger.warning("presence.claim_failed connection=%s error=%s", self.core.connection_id, error)

    # Operations

    def _committed(self, ticket: int, done: Done) -> None:
        self.carry_out(self.core.committed(ticket, done))
        self._rollup.answered(ticket)
        self._proceed()

    def _refused(self, ticket: int, error: ErrorInfo) -> None:
        self.carry_out(self.core.refused(ticket, error))
        self._rollup.answered(ticket)
        self._proceed()

    def _answer_first(self, commit: Commit) -> None:
        """Keep a session's entries back until its turn's input is acknowledged.

        A fast agent may have answered before the ACK is on its way, and the SDK's ChatTransport hears the answer
        only from then on.
        """
        session = woken_session(commit.operation)
        if session is None:
            return
        for watched in self._watched.values():
            if watched.session == session and watched.feed is not None:
                watched.feed.pause(watched.attachment)
                self._paused.append((commit.ticket, watched.feed, watched.attachment))

    def _proceed(self) -> None:
        """Let entries follow the answers that have left."""
        while self._paused and not self.core.owes(self._paused[0][0]):
            _, feed, attachment = self._paused.popleft()
            feed.proceed(attachment)

    async def _settle(self, done: Done) -> None:
        """Wait, bounded, until everything before a cancel has been written to this socket (P2)."""
        if done.settled_at is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                for watched in list(self._watched.values()):
                    if watched.feed is not None and watched.feed.series == done.series:
                        await watched.feed.passed(done.settled_at)
                        watched.feed.clear(watched.attachment, done.settled_at)
                        await watched.attachment.caught_up(done.settled_at)

    # Credentials

    async def _authenticate(self, token: str) -> None:
        identity = self.core.credential.identity
        try:
            credential = await self._services.authenticator.again(self._info, token, identity.client_id)
        except StoreUnavailable:
            # Nothing is wrong with the token: the client tries again with a new connection.
            self.disconnect(error_info(Code.DISCONNECTED, "the token cannot be verified at the moment"))
            return
        except TransportError as error:
            self.carry_out(self.core.authentication_failed(error))
            return
        self.carry_out(self.core.reauthenticated(credential, self._new_key()))
        if self.core.phase is Phase.CONNECTED:
            self._watch_expiry(credential)

    def revoke(self, applies_at: int) -> None:
        """The token was revoked; where that applies later, the client may renew it until then (section 10.7)."""
        if applies_at > now_ms():
            self.carry_out(self.core.request_token())
        else:
            self.disconnect(error_info(Code.TOKEN_REVOKED))

    def _watch_expiry(self, credential: Credential) -> None:
        """Ask for a new token in time; end the connection when its token expires (section 4.7)."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if credential.expires_ms is None:
            return
        loop = asyncio.get_running_loop()
        left = (credential.expires_ms - now_ms()) / 1000
        self._timers.append(loop.call_later(max(0.0, left), self._expire))
        if left > TOO_LATE_TO_RENEW_S:
            renew = max(0.0, left - RENEW_BEFORE_S)
            self._timers.append(loop.call_later(renew, lambda: self.carry_out(self.core.request_token())))
        elif left > SHORTEST_RENEWAL_S:
            self._timers.append(loop.call_later(left / 2, self._renew_what_is_used))

    def _renew_what_is_used(self) -> None:
        """Tokens that live for seconds are renewed only where a reconnect would interrupt something (AUT-5).

        The SDKs' own tests expect an idle connection with such a token to be disconnected when it expires.
        """
        if self._watched:
            self.carry_out(self.core.request_token())

    def _expire(self) -> None:
        self.disconnect(error_info(Code.TOKEN_EXPIRED))

    def _new_key(self) -> str:
        credential = self.core.credential
        return issue_connection_key(
            self._services.secret,
            self.core.connection_id,
            app_id=credential.app_id,
            client_id=credential.identity.client_id,
            now_ms=now_ms(),
        )


def wanted_format(query: Mapping[str, str]) -> Format:
    """The format of the frames to send; JSON unless the client asks for msgpack."""
    return Format.MSGPACK if query.get("format") == "msgpack" else Format.JSON


def flag(query: Mapping[str, Any], name: str, default: bool) -> bool:
    """A boolean query parameter."""
    value = query.get(name)
    return default if value not in ("true", "false") else value == "true"
