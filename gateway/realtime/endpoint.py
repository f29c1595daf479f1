"""The websocket endpoint: accepts, authenticates, resumes, then hands over to `ConnectionDriver` (protocol section 2)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.auth.authenticator import Credential, now_ms
from gateway.auth.callers import RequestInfo
from gateway.background import Background
from gateway.commands.presence import remain_ms
from gateway.fanout.delivery import encode_websocket
from gateway.realtime import append_coalescer
from gateway.realtime.connection import Connection
from gateway.realtime.driver import ConnectionDriver, flag, wanted_format
from gateway.services import Services
from gateway.websocket.upgrade import QueuedOutlet, StartableOutlet, raw_websocket
from selfhost_transport.errors import BadRequest, ErrorInfo, RateLimited, ServiceError, TransportError
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.connection_key import new_connection_id, verify_connection_key
from selfhost_transport.wire.frame import Frame

logger = logging.getLogger(__name__)

MIN_VERSION = 2
_HEARTBEAT_LOW_MS, _HEARTBEAT_HIGH_MS = 5_000, 1_800_000
_LONGEST_PAUSE_S, _SHORTEST_PAUSE_S = 0.1, 0.002
_LOOK_LATE_S = 0.01
_FINISH_TIMEOUT_S = 5.0
# Checks which connections are due, within the interval of the keep-alives.
_TICKS = 100


@dataclass(frozen=True, slots=True)
class _Resumption:
    """The connection id to continue with; `error`: why it is a new one."""

    connection_id: str
    error: ErrorInfo | None = None
    resumed: bool = False


class Realtime:
    """All websockets of this process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # The newest of each connection.
        self._sockets: dict[str, ConnectionDriver] = {}
        # All that are open, and the loop time of their next keep-alive; the one that is due next comes first.
        self._due: dict[ConnectionDriver, float] = {}
        # Heartbeats and pings come well within the announced idle time; 0: none.
        self._interval_s = services.settings.gateway.max_idle_ms * 2 / 3000
        # One for all connections.
        self._on_end = self._ended
        self._background = Background("realtime")
        self._draining = False
        # When a revocation with time to renew begins to apply.
        self._next_look: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Open sockets."""
        return len(self._sockets)

    async def serve(self, websocket: WebSocket) -> None:
        """One websocket: the upgrade, and under a server that needs it the whole life of the connection.

        Errors are sent in frames, never by refusing the upgrade.
        """
        raw = raw_websocket(websocket.scope)
        if raw is None:
            await websocket.accept()
            await self._converse(websocket, QueuedOutlet(websocket.send))
            return
        raw.hold()
        await websocket.accept()
        outlet = raw.hand_over()
        try:
            await self.admit(websocket, outlet)
        except BaseException:
            outlet.abort()
            raise

    async def _converse(self, websocket: WebSocket, outlet: QueuedOutlet) -> None:
        socket = await self.admit(websocket, outlet)
        try:
            while socket is not None:
                message = await websocket.receive()
                if message["type"] != "websocket.receive":
                    break
                text = message.get("text")
                socket.receive(text if text is not None else message.get("bytes") or b"")
                await socket.ready()
        except WebSocketDisconnect:
            pass
        finally:
            if socket is not None:
                socket.ended()
        await outlet.flush()

    async def admit(
        self, opening: HTTPConnection, outlet: StartableOutlet, *, text_only: bool = False
    ) -> ConnectionDriver | None:
        """Begin the connection that an upgrade, or a request in its place, asks for; or say why not, and return None."""
        query = dict(opening.query_params)
        if text_only:
            query.pop("format", None)
        info = RequestInfo.of(opening)
        try:
            credential = await self._authenticate(info)
            resumption = self._resume(query, credential)
            self._check_connections(credential, resumption.connection_id)
            if self._draining:
                raise ServiceError("the server is restarting")
        except ServiceError as error:
            # Not the client's fault: it is to try again (section 4.4 on why never with a status of 5xx).
            refusal = Frame(Action.DISCONNECTED, error=error_info(Code.DISCONNECTED, str(error)))
        except TransportError as error:
            refusal = Frame(Action.ERROR, error=error.info)
        else:
            socket = self._socket(query, info, credential, resumption)
            self._begin(socket, outlet, resumption.error)
            return socket
        outlet.write(encode_websocket(refusal, wanted_format(query)))
        outlet.close()
        return None

    def _socket(
        self, query: Mapping[str, str], info: RequestInfo, credential: Credential, resumption: _Resumption
    ) -> ConnectionDriver:
        services, connection_id = self._services, resumption.connection_id
        remains_ms = remain_ms(query, services.settings.gateway.remain_present_for_ms)
        core = Connection(
            connection_id,
            credential,
            services.terms(_heartbeat_interval(query)),
            services.rules_for,
            services.holder(connection_id, remains_ms),
            services.limits,
            services.hidden_from,
        )
        core.members.inherited = resumption.resumed
        return ConnectionDriver(
            services,
            core,
            wanted_format(query),
            echo=flag(query, "echo", True),
            heartbeats=flag(query, "heartbeats", True),
            info=services.authenticator.retained(info),
            rollup_ms=append_coalescer.window_ms(query.get(append_coalescer.PARAM)),
            on_end=self._on_end,
        )

    @property
    def sockets(self) -> list[ConnectionDriver]:
        """Open sockets, the newest of each connection."""
        return list(self._sockets.values())

    async def keep_alive(self) -> None:
        """Until cancelled: show every client that its connection lives, each at a time of its own."""
        while self._interval_s:
            now = asyncio.get_running_loop().time()
            for socket in list(takewhile(lambda socket: self._due[socket] <= now, self._due)):  # noqa: B023
                # To the end: the interval is the same for all, so the order is that of their times.
                self._due[socket] = self._due.pop(socket) + self._interval_s
                socket.keep_alive()
            await asyncio.sleep(self._interval_s / _TICKS)  # the clock's pace

    async def drain(self, grace_s: float) -> None:
        """Send all clients away, spread over the grace time, so that they do not come back at once (section 13)."""
        self._draining = True
        waiting = list(self._sockets.values())
        began = time.monotonic()
        # A few connections need no spreading.
        pause = min(grace_s / max(1, len(waiting)), _LONGEST_PAUSE_S)
        for index, socket in enumerate(waiting):
            ahead = began + index * pause - time.monotonic()
            if ahead > _SHORTEST_PAUSE_S:
                await asyncio.sleep(ahead)  # the pace itself
            socket.disconnect(error_info(Code.DISCONNECTED, "the server is restarting; reconnect and resume"))

    async def close(self) -> None:
        """End what still runs: what connections had begun in the store is finished first, in bounded time."""
        self._look_again(None)
        for socket in list(self._due):
            socket.ended()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FINISH_TIMEOUT_S):
                await self._background.finish()
        await self._background.close()

    async def _authenticate(self, info: RequestInfo) -> Credential:
        version = info.query.get("v")
        if version is not None and not _is_supported(version):
            raise BadRequest(
                f"protocol version {version[:8]!r} is not supported; use {MIN_VERSION} or newer",
                code=Code.UNSUPPORTED_VERSION,
            )
        return await self._services.authenticator.of_connection(info)

    def _check_connections(self, credential: Credential, connection_id: str) -> None:
        """Raises RateLimited 42920 for one connection too many of a client; a resumed one is no further one."""
        limit = self._services.settings.limits.connections_per_client
        client_id = credential.identity.client_id
        if not limit or client_id is None or connection_id in self._sockets:
            return
        who = (credential.app_id, credential.identity)
        cores = (socket.core for socket in self._sockets.values())
        if sum((core.credential.app_id, core.credential.identity) == who for core in cores) >= limit:
            raise RateLimited(
                f"client {client_id[:64]!r} has {limit} connections already; close one",
                code=Code.CONNECTION_RATE_FATAL,
            )

    def revoked(self) -> None:
        """End the connections whose token was revoked, and see to those whose time comes later (section 10.7)."""
        times: set[int] = set()
        for socket in list(self._sockets.values()):
            applies_at = self._services.revocations.applies_at(socket.core.credential)
            if applies_at is not None:
                socket.tokens.revoke(applies_at)
                times.add(applies_at)
        self._look_again(min((time for time in times if time > now_ms()), default=None))

    def _look_again(self, at_ms: int | None) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        if at_ms is not None:
            delay = (at_ms - now_ms()) / 1000 + _LOOK_LATE_S
            self._next_look = asyncio.get_running_loop().call_later(delay, self.revoked)

    def _resume(self, query: Mapping[str, str], credential: Credential) -> _Resumption:
        key = query.get("resume") or query.get("recover")
        if not key:
            return _Resumption(new_connection_id())
        try:
            found = verify_connection_key(
                self._services.secret,
                key,
                app_id=credential.app_id,
                client_id=credential.identity.client_id,
            )
        except TransportError as error:
            return _Resumption(new_connection_id(), error.info)
        present = self._sockets.get(found.connection_id)
        if present is not None and found.issued_ms < present.key_issued_ms:
            # Two clients that share a key would push each other out without end.
            return _Resumption(new_connection_id(), error_info(Code.INVALID_CONNECTION_KEY))
        return _Resumption(found.connection_id, resumed=True)

    def _begin(self, socket: ConnectionDriver, outlet: StartableOutlet, error: ErrorInfo | None) -> None:
        connection_id = socket.core.connection_id
        previous = self._sockets.get(connection_id)
        self._sockets[connection_id] = socket
        if previous is not None:
            reason = "the connection was resumed on another socket"
            previous.disconnect(error_info(Code.DISCONNECTED, reason))
        self._services.metrics.connections.inc()
        self._due[socket] = asyncio.get_running_loop().time() + self._interval_s
        try:
            socket.open(outlet, error)
            limit = self._services.settings.gateway.outgoing_buffer_bytes
            outlet.start(socket, self._background, limit, self._services.hub.write_batch)
        except BaseException:
            socket.ended()
            raise

    def _ended(self, socket: ConnectionDriver) -> None:
        """A websocket is gone."""
        connection_id = socket.core.connection_id
        if self._sockets.get(connection_id) is socket:
            del self._sockets[connection_id]
        if self._due.pop(socket, None) is not None:
            self._services.metrics.connections.dec()
            self._background.start(socket.lost())


def _is_supported(version: str) -> bool:
    found = re.fullmatch(r"([0-9]{1,3})(\.[0-9]{1,3})?", version)
    return found is not None and float(version) >= MIN_VERSION


def _heartbeat_interval(query: Mapping[str, str]) -> int | None:
    text = query.get("heartbeatInterval", "")
    if re.fullmatch(r"[0-9]{1,12}", text) is None:
        return None
    return min(max(int(text), _HEARTBEAT_LOW_MS), _HEARTBEAT_HIGH_MS)
