"""One websocket: runs a connection's core, carries its effects out, keeps its timers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.auth.authenticator import now_ms
from gateway.auth.callers import RequestInfo
from gateway.background import Background
from gateway.commands.commands import Done
from gateway.fanout.delivery import encode_websocket
from gateway.realtime.append_coalescer import DEFAULT_WINDOW_MS
from gateway.realtime.channels import SocketChannels
from gateway.realtime.command_queue import CommandQueue
from gateway.realtime.connection import Connection, Phase
from gateway.realtime.effects import (
    Adjust,
    Attach,
    Authenticate,
    CloseSocket,
    Command,
    Deliver,
    Detach,
    Effect,
    SendFrame,
    Sync,
)
from gateway.realtime.gate import Gate
from gateway.realtime.token_watch import TokenWatch
from gateway.services import Services
from gateway.websocket.upgrade import SocketOutlet
from selfhost_transport.errors import BadRequest, ErrorInfo, MessageTooLarge, TransportError
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.frame import Frame, decode_frame
from selfhost_transport.wire.halves import Halves
from selfhost_transport.wire.message import Format

logger = logging.getLogger(__name__)

SLOW_READER_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 10.0
MAX_UNANSWERED = 512
"""Frames whose answer has not left, refusals behind a slow operation among them; beyond that, the socket is not read."""
MAX_BEING_READ = 256
"""Attachments and member lists that are being read from the store; beyond that, the same."""
MAX_POSTPONED = 256
"""Frames that wait for earlier ones of their channel; the socket is not read while there are more."""


class ConnectionDriver:
    """A connected client, as the listener of its websocket.

    `on_end` is called once when the websocket is gone; `lost` is to be awaited then.
    """

    __slots__ = (
        "_authenticating",
        "_background",
        "_channels",
        "_closing",
        "_commands",
        "_fmt",
        "_give_up",
        "_halves",
        "_on_end",
        "_orderly",
        "_outlet",
        "_readable",
        "_services",
        "core",
        "heartbeats",
        "key_issued_ms",
        "tokens",
    )

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
        on_end: Callable[[ConnectionDriver], None] = lambda socket: None,
    ) -> None:
        self.core = core
        self._on_end = on_end
        self.key_issued_ms = now_ms()
        self.heartbeats = heartbeats
        self._services = services
        self._fmt = fmt
        # Verifies a token that came in-band.
        self._authenticating: asyncio.Task[None] | None = None
        self._outlet: SocketOutlet | None = None
        self._give_up: asyncio.TimerHandle | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._halves = Halves()
        self._readable = Gate()
        self._orderly = Gate()
        self._background = Background("socket")
        self._channels = SocketChannels(
            services, core, fmt, self._background, self.carry_out, self.disconnect, echo=echo
        )
        self.tokens = TokenWatch(
            core,
            services.authenticator,
            services.secret,
            info,
            self.carry_out,
            self.disconnect,
            self._channels.__len__,
        )
        self._commands = CommandQueue(
            services.executor,
            self._background,
            self._channels.wait_for_entries,
            self._committed,
            self._refused,
            window_ms=rollup_ms,
        )

    def open(self, outlet: SocketOutlet, error: ErrorInfo | None) -> None:
        """Send CONNECTED and start the clocks. `error`: why a resume failed."""
        self._outlet = self._channels.outlet = outlet
        self.tokens.key_prefix = outlet.key_prefix
        self.carry_out(self.core.open(self.tokens.new_key(), error))
        if self.core.members.inherited:
            self._background.start(self._inherit())
        self.tokens.watch(self.core.credential)

    def receive(self, raw: str | bytes) -> None:
        """One message of the websocket."""
        self._services.metrics.frames.inc()
        # The Java SDK sends JSON as binary messages; no map in msgpack begins with a brace.
        fmt = Format.JSON if isinstance(raw, str) or raw[:1] == b"{" else Format.MSGPACK
        try:
            frame = decode_frame(raw, fmt, self._halves)
        except BadRequest as error:
            self.carry_out(self.core.receive_malformed(error))
            return
        self.carry_out(self.core.receive(frame))

    @property
    def busy(self) -> bool:
        """Whether the next message has to wait: see `ready`."""
        return self._authenticating is not None or not (self._readable.is_open and self._orderly.is_open)

    async def ready(self) -> None:
        """Returns once the next message may be handled."""
        if self._authenticating is not None:
            # What follows is judged by the new rights.
            await asyncio.wait({self._authenticating})
            self._authenticating = None
        await self._orderly.passed()
        # Who does not read its answers is not listened to (P10).
        await self._readable.passed()

    def too_large(self) -> None:
        """A message of the websocket is above the limit: said, because the client would only send it again."""
        limit = self._services.settings.gateway.max_frame_size
        reason = f"the frame is larger than {limit} bytes; send less at once"
        self.carry_out(self.core.fail(MessageTooLarge(reason).info))

    def ended(self) -> None:
        """The websocket is gone."""
        self._on_end(self)

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Do what the core wants, in order."""
        for effect in effects:
            match effect:
                case SendFrame(frame):
                    self._send(frame)
                case Command():
                    self._channels.hold_back(effect)
                    self._commands.add(effect)
                case Attach():
                    self._channels.attach(effect)
                case Deliver(channel):
                    self._channels.deliver(channel)
                case Adjust():
                    self._channels.adjust(effect)
                case Sync(channel):
                    self._channels.sync(channel)
                case Detach(channel):
                    self._channels.detach(channel)
                case Authenticate(token):
                    self._authenticating = self._background.start(self.tokens.authenticate(token))
                case CloseSocket():
                    self._end()
        if self._has_enough_to_do:
            self._orderly.shut()
        else:
            self._orderly.open()

    @property
    def _has_enough_to_do(self) -> bool:
        """Whether so much is in flight that the socket is not read until some of it has arrived."""
        if self._outlet is None:
            # Not open yet, or gone.
            return False
        core = self.core
        return (
            core.postponed >= MAX_POSTPONED
            or core.unanswered >= MAX_UNANSWERED
            or self._channels.being_read >= MAX_BEING_READ
        )

    def keep_alive(self) -> None:
        """Show the client that the connection lives, and ask it for the same (section 4.3)."""
        if self.core.phase is not Phase.CONNECTED or self._outlet is None:
            return
        if self.heartbeats and self._readable.is_open:
            self._send(Frame(Action.HEARTBEAT))
        self._outlet.ping()

    def congested(self) -> None:
        """More waits to be sent than the limit allows: the client has a bounded time to read it (P10)."""
        self._readable.shut()
        loop = asyncio.get_running_loop()
        self._give_up = loop.call_later(SLOW_READER_TIMEOUT_S, self._abandon)

    def drained(self) -> None:
        """The socket has room again."""
        self._readable.open()
        if self._give_up is not None:
            self._give_up.cancel()
        self._channels.drained()

    def disconnect(self, error: ErrorInfo) -> None:
        """Send the client away; it may resume."""
        self.carry_out(self.core.disconnect(error))

    async def lost(self) -> None:
        """The socket is gone: stop delivering, let what was begun in the store finish."""
        self._channels.detach_all()
        self._commands.close()
        self._readable.open()
        for timer in (self._give_up, self._closing):
            if timer is not None:
                timer.cancel()
        await self._background.finish()
        self.tokens.stop()
        self.core.lost()
        # They point back at this socket. Without the circle all of it is freed now, not by some garbage collection.
        self._outlet = self._authenticating = None
        self._commands.free()
        del self._channels, self._commands, self.tokens
        if self.core.members:
            await self._services.presence_lease.lost(self.core.holder)

    async def reclaim_presence(self) -> None:
        """Hold the connection's members again after this process was taken for dead."""
        if not self.core.members:
            return
        if not await self._services.presence.claim(self.core.holder):
            # They left. The client enters them again when it comes back.
            self.disconnect(error_info(Code.DISCONNECTED, "presence was lost; reconnect and resume"))

    def _abandon(self) -> None:
        self._services.metrics.slow_readers.inc()
        if self._outlet is not None:
            self._outlet.abort()

    def _end(self) -> None:
        self._channels.detach_all()
        loop = asyncio.get_running_loop()
        self._closing = loop.call_later(CLOSE_TIMEOUT_S, self._abandon)
        if self._outlet is not None:
            self._outlet.close()

    def _send(self, frame: Frame) -> None:
        if self._outlet is not None:
            self._outlet.write(encode_websocket(frame, self._fmt))

    async def _inherit(self) -> None:
        """Hold the members that an earlier socket of this connection entered."""
        try:
            self.core.members.inherited = await self._services.presence.claim(self.core.holder)
        except TransportError as error:
            # The client enters its members again once it has attached.
            logger.warning("presence.claim_failed connection=%s error=%s", self.core.connection_id, error)

    # Operations

    def _committed(self, ticket: int, done: Done) -> None:
        # The entries that waited for the reply leave with it.
        with self._services.hub.write_batch:
            self.carry_out(self.core.committed(ticket, done))
            self._channels.proceed(done)

    def _refused(self, ticket: int, error: ErrorInfo) -> None:
        self.carry_out(self.core.refused(ticket, error))
        self._channels.proceed()


def wanted_format(query: Mapping[str, str]) -> Format:
    """The format of the frames to send; JSON unless the client asks for msgpack."""
    return Format.MSGPACK if query.get("format") == "msgpack" else Format.JSON


def flag(query: Mapping[str, Any], name: str, default: bool) -> bool:
    """A boolean query parameter."""
    value = query.get(name)
    return default if value not in ("true", "false") else value == "true"
