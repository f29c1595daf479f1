"""The websocket endpoint: accepts, authenticates, resumes, then hands over to `Socket` (protocol section 2)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway import rollup
from gateway.auth import Credential, now_ms
from gateway.background import Background
from gateway.callers import RequestInfo
from gateway.connection import Connection
from gateway.delivery import encode_websocket
from gateway.presence import remain_ms
from gateway.services import Services
from gateway.socket import Socket, flag, wanted_format
from gateway.transport import RAW, QueuedOutlet, RawOutlet, SocketOutlet
from selfhost_transport.errors import BadRequest, ErrorInfo, RateLimited, ServiceError, TransportError
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.connection_key import new_connection_id, verify_connection_key
from selfhost_transport.wire.frame import Frame
from selfhost_transport.wire.message import Format

logger = logging.getLogger(__name__)

MIN_VERSION = 2
_HEARTBEAT_LOW_MS, _HEARTBEAT_HIGH_MS = 5_000, 1_800_000
_LONGEST_PAUSE_S, _SHORTEST_PAUSE_S = 0.1, 0.002
_LOOK_LATE_S = 0.01


@dataclass(frozen=True, slots=True)
class _Resumption:
    """The connection id to go on with; `error`: why it is a new one."""

    connection_id: str
    error: ErrorInfo | None = None
    resumed: bool = False


class Realtime:
    """All websockets of this process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sockets: dict[str, Socket] = {}
        self._background = Background("realtime")
        self._draining = False
        # When a revocation with time to renew begins to apply.
        self._next_look: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Open sockets."""
        return len(self._sockets)

    async def serve(self, websocket: WebSocket) -> None:
        """One websocket, from the upgrade to its end. Errors are told in frames, never by refusing the upgrade."""
        await websocket.accept()
        query = dict(websocket.query_params)
        fmt = wanted_format(query)
        info = RequestInfo.of(websocket)
        try:
            credential = await self._admit(info)
            resumption = self._resume(query, credential)
            self._check_connections(credential, resumption.connection_id)
        except ServiceError as error:
            # Not the client's fault: it is to try again (section 4.4 on why never with a status of 5xx).
            await _refuse(websocket, fmt, error_info(Code.DISCONNECTED, str(error)), Action.DISCONNECTED)
            return
        except TransportError as error:
            await _refuse(websocket, fmt, error.info)
            return
        if self._draining:
            await _refuse(websocket, fmt, error_info(Code.DISCONNECTED), Action.DISCONNECTED)
            return
        core = Connection(
            resumption.connection_id,
            credential,
            self._services.terms(_heartbeat_interval(query)),
            self._services.rules_for,
            self._services.holder(
                resumption.connection_id,
                remain_ms(query, self._services.settings.gateway.remain_present_for_ms),
            ),
            self._services.limits,
        )
        core.inherits_members = resumption.resumed
        socket = Socket(
            self._services,
            core,
            fmt,
            echo=flag(query, "echo", True),
            heartbeats=flag(query, "heartbeats", True),
            info=info,
            rollup_ms=rollup.window_ms(query.get(rollup.PARAM)),
        )
        await self._run(websocket, socket, resumption.error)

    @property
    def sockets(self) -> list[Socket]:
        """Open sockets, the newest of each connection."""
        return list(self._sockets.values())

    def heartbeats(self) -> None:
        """Send a heartbeat to every client that cannot see websocket pings."""
        for socket in self._sockets.values():
            if socket.heartbeats:
                socket.heartbeat()

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
        """End what still runs."""
        self._look_again(None)
        await self._background.close()

    async def _admit(self, info: RequestInfo) -> Credential:
        version = info.query.get("v")
        if version is not None and (not version.split(".")[0].isdigit() or float(version) < MIN_VERSION):
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
                socket.revoke(applies_at)
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
            # Two clients that share a key would push each other out for ever.
            return _Resumption(new_connection_id(), error_info(Code.INVALID_CONNECTION_KEY))
        return _Resumption(found.connection_id, resumed=True)

    async def _run(self, websocket: WebSocket, socket: Socket, error: ErrorInfo | None) -> None:
        connection_id = socket.core.connection_id
        previous = self._sockets.get(connection_id)
        self._sockets[connection_id] = socket
        if previous is not None:
            reason = "the connection was resumed on another socket"
            previous.disconnect(error_info(Code.DISCONNECTED, reason))
        outlet = self._outlet(websocket, socket)
        self._services.metrics.connections.inc()
        try:
            socket.open(outlet, lambda: self._close_soon(websocket, outlet), error)
            while True:
                message = await websocket.receive()
                if message["type"] != "websocket.receive":
                    break
                self._services.metrics.frames.inc()
                text = message.get("text")
                await socket.receive(text if text is not None else message.get("bytes") or b"")
        except WebSocketDisconnect:
            pass
        finally:
            if self._sockets.get(connection_id) is socket:
                del self._sockets[connection_id]
            self._services.metrics.connections.dec()
            await socket.lost()

    def _outlet(self, websocket: WebSocket, socket: Socket) -> SocketOutlet:
        limit = self._services.settings.gateway.outgoing_buffer_bytes
        raw: Mapping[str, Any] | None = websocket.scope.get("extensions", {}).get(RAW)
        if raw is not None:
            return RawOutlet(raw["protocol"], limit, socket.congested, socket.drained)
        return QueuedOutlet(websocket.send, limit, socket.congested, socket.drained)

    def _close_soon(self, websocket: WebSocket, outlet: SocketOutlet) -> None:
        self._background.start(_close(websocket, outlet))


async def _close(websocket: WebSocket, outlet: SocketOutlet) -> None:
    """Close behind everything that was written."""
    if isinstance(outlet, QueuedOutlet):
        await outlet.flush()
    # The client may have closed it already.
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await websocket.close()


async def _refuse(websocket: WebSocket, fmt: Format, error: ErrorInfo, action: Action = Action.ERROR) -> None:
    frame = encode_websocket(Frame(action, error=error), fmt)
    outlet = QueuedOutlet(websocket.send, len(frame), lambda: None, lambda: None)
    outlet.write(frame)
    await _close(websocket, outlet)


def _heartbeat_interval(query: Mapping[str, str]) -> int | None:
    text = query.get("heartbeatInterval", "")
    if not text.isascii() or not text.isdigit():
        return None
    return min(max(int(text), _HEARTBEAT_LOW_MS), _HEARTBEAT_HIGH_MS)
