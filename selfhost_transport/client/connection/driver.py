"""Drives a connection with asyncio: opens sockets, moves frames and keeps the time for its core."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from selfhost_transport.client.connection.backoff import Backoff
from selfhost_transport.client.connection.core import ConnectionCore
from selfhost_transport.client.connection.credentials import Credentials
from selfhost_transport.client.connection.effects import (
    Answered,
    Attached,
    AttachRefused,
    Drop,
    Effect,
    NeedToken,
    Received,
    Send,
    StateChanged,
)
from selfhost_transport.client.connection.endpoint import AGENT, PROTOCOL_VERSION, Endpoint
from selfhost_transport.client.connection.outbox import Outgoing, PublishOutcome
from selfhost_transport.client.connection.socket import Dial, Socket, dial_websocket
from selfhost_transport.client.connection.state import ConnectionState, StateChange
from selfhost_transport.client.options import ClientOptions
from selfhost_transport.errors import (
    BadRequest,
    Discarded,
    ErrorInfo,
    InvalidArgument,
    TokenError,
    TransportError,
    UntrustedCertificate,
)
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import AckResult, Frame, decode_frame, encode_frame
from selfhost_transport.wire.message import Message

_log = logging.getLogger(__name__)

# A token that is refused again and again is not fetched in a tight loop (AUT-11).
_TOKEN_RETRY_S = 6.0
# Unanswered publishes from which on a cancel takes another way (CAN-19).
_CROWDED = 64
# As long as a serial gets, for the size of a frame that has none yet.
_ANY_SERIAL = 2**31 - 1


class ConnectionListener(Protocol):
    """Receives the events of a connection. Its methods do not raise."""

    def on_change(self, change: StateChange) -> None:
        """The state of the connection changed."""

    def on_attached(self, attached: Attached) -> None:
        """The session is attached, for the first time or again."""

    def on_attach_refused(self, error: ErrorInfo) -> None:
        """The session cannot be attached."""

    def on_frame(self, frame: Frame) -> None:
        """Messages arrived."""


class Connection:
    """Keeps one connection to any of several gateways up until it is closed. Use from one event loop."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        credentials: Credentials,
        channel: str,
        listener: ConnectionListener,
        *,
        client_id: str | None = None,
        channel_params: Mapping[str, str] | None = None,
        options: ClientOptions | None = None,
        dial: Dial = dial_websocket,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options or ClientOptions()
        self._endpoints = list(endpoints)
        self._attempts = 0
        # Attempts in a row that will fail again, however often they are repeated.
        self._hopeless = 0
        self._credentials = credentials
        self._listener = listener
        self._client_id = client_id
        self._dial = dial
        self._clock = clock
        self._socket: Socket | None = None
        self._answers: dict[Outgoing, asyncio.Future[AckResult]] = {}
        self._running: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # What the timer is set to; frames move the deadline later without touching it.
        self._timer_at = 0.0
        # Set when waiting for the next attempt no longer makes sense.
        self._hurry = asyncio.Event()
        self._token_refusals = 0
        self.core = ConnectionCore(
            channel,
            backoff=Backoff(self.options.retry_initial, self.options.retry_max, len(self._endpoints)),
            params=channel_params,
            outbox_limit=self.options.outbox_limit,
            connect_timeout=self.options.connect_timeout,
            attach_timeout=self.options.attach_timeout,
            renewable=credentials.renewable,
        )

    @property
    def endpoint(self) -> Endpoint:
        """The gateway in use, or tried at present."""
        return self._endpoints[max(self._attempts - 1, 0) % len(self._endpoints)]

    @property
    def is_backpressured(self) -> bool:
        """Whether so much waits for an answer on a live connection that a cancel must not stand in that line."""
        return self.core.state is ConnectionState.CONNECTED and len(self.core.outbox) > _CROWDED

    def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Say goodbye and stop; publishes still waiting fail with SessionClosed."""
        self._perform(self.core.close())
        self._hurry.set()
        if self._running is not None:
            if self._socket is not None:
                await self._socket.close()
            elif self._running is not asyncio.current_task():
                self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

    def publish(self, messages: list[Message]) -> asyncio.Future[AckResult]:
        """Send messages as one atomic publish, now or as soon as there is a connection.

        The future has the result once the service has written them. It fails with the service's refusal or, when
        the client is closed or failed, with that. Raises RateLimited, SessionClosed, TransportError, and BadRequest
        for what the format cannot carry, MessageTooLarge for what the service would close the connection over.
        """
        # What cannot be encoded must fail here, not when it is sent after a reconnect.
        frame = Frame(Action.MESSAGE, channel=self.core.channel, msg_serial=_ANY_SERIAL, messages=messages)
        size = len(encode_frame(frame, self.options.format))
        answer: asyncio.Future[AckResult] = asyncio.get_running_loop().create_future()
        outgoing, effects = self.core.publish(messages, size)
        self._answers[outgoing] = answer
        self._perform(effects)
        return answer

    def withdraw(self, answer: asyncio.Future[AckResult]) -> bool:
        """Take back the publish that `answer` belongs to, which then fails with Discarded; False: it has left."""
        for outgoing, known in self._answers.items():
            if known is answer and self.core.outbox.withdraw(outgoing):
                del self._answers[outgoing]
                answer.set_exception(Discarded("the send was discarded before transmission"))
                return True
        return False

    def drop(self) -> None:
        """Cut the socket, as a network failure would; the connection recovers by itself."""
        if self._socket is not None:
            self._socket.abort()

    # One attempt after the other

    async def _run(self) -> None:
        try:
            await self._keep_connected()
        except Exception as error:
            # A bug of ours: waiters must fail rather than hang.
            _log.exception("connection.broken endpoint=%s", self.endpoint.netloc)
            self._perform(self.core.fail(ErrorInfo(50000, 500, f"the client failed: {error!r}")))

    async def _keep_connected(self) -> None:
        while not self.core.state.is_final:
            error = await self._attempt()
            self._stop_timer()
            if self._hopeless >= len(self._endpoints) and not self.core.connections:
                self._perform(self.core.fail(error))
                return
            self._perform(self.core.lost(error, self._clock()))
            if not self.core.state.is_final:
                await self._pause(error)

    async def _attempt(self) -> ErrorInfo:
        """Connect and read until the socket is lost; returns why."""
        self._attempts += 1
        self._perform(self.core.dialing(self._clock()))
        socket: Socket | None = None
        try:
            async with asyncio.timeout(self.options.connect_timeout):
                if self.core.token_refused:
                    await self._credentials.renew()
                headers = {"Authorization": await self._credentials.header()}
                socket = await self._dial(self.endpoint.socket_url(self._query()), headers)
            self._socket = socket
            await self._read(socket)
        except TimeoutError:
            return ErrorInfo(80000, 408, f"no answer from {self.endpoint.netloc} in time")
        except (InvalidArgument, UntrustedCertificate) as error:
            self._hopeless += 1
            return error.info
        except TransportError as error:
            self._hopeless = 0
            return error.info
        finally:
            self._socket = None
            if socket is not None:
                await socket.close()
        return ErrorInfo(80003, 400, "the connection was closed")

    async def _read(self, socket: Socket) -> None:
        fmt = self.options.format
        while not self.core.state.is_final:
            raw = await socket.receive()
            try:
                frame = decode_frame(raw, fmt)
            except BadRequest as error:
                # Something that does not speak the protocol: another gateway may.
                raise TransportError(f"the service sent an invalid frame: {error}") from error
            self._perform(self.core.received(frame, self._clock()))

    def _query(self) -> dict[str, str]:
        query = {
            "v": PROTOCOL_VERSION,
            "format": self.options.format.value,
            "heartbeats": "true",
            "agent": AGENT,
        }
        if self._client_id is not None:
            query["clientId"] = self._client_id
        if not self.options.echo:
            query["echo"] = "false"
        if self.core.connection_key is not None:
            query["resume"] = self.core.connection_key
        return {**query, **self.options.transport_params}

    async def _pause(self, error: ErrorInfo) -> None:
        delay = self.core.retry_in or 0.0
        if 40140 <= error.code <= 40179:
            # The first refusal is what an expired token looks like: renew and continue at once.
            delay = max(delay, _TOKEN_RETRY_S) if self._token_refusals else 0.0
            self._token_refusals += 1
        if delay:
            try:
                async with asyncio.timeout(delay):
                    await self._hurry.wait()
            except TimeoutError:
                pass
        self._hurry.clear()

    # Doing what the core asks for

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Received(frame):
                    self._listener.on_frame(frame)
                case Send(frame):
                    self._send(frame)
                case Answered(outcome):
                    self._resolve(outcome)
                case StateChanged(change):
                    if change.current is ConnectionState.CONNECTED:
                        self._token_refusals = 0
                    self._listener.on_change(change)
                case Attached():
                    self._listener.on_attached(effect)
                case AttachRefused(error):
                    self._listener.on_attach_refused(error)
                case Drop():
                    self.drop()
                case NeedToken():
                    self._renew_in_band()
        self._arm_timer()

    def _send(self, frame: Frame) -> None:
        if self._socket is not None:
            payload = encode_frame(frame, self.options.format)
            self._socket.send(payload.decode() if self.options.format is Format.JSON else payload)

    def _resolve(self, outcome: PublishOutcome) -> None:
        answer = self._answers.pop(outcome.outgoing, None)
        if answer is None or answer.done():
            return
        if outcome.error is not None:
            answer.set_exception(TransportError.from_info(outcome.error))
            # The publisher may have stopped waiting; then the refusal has no receiver.
            answer.exception()
        elif outcome.result is not None:
            answer.set_result(outcome.result)

    def _renew_in_band(self) -> None:
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._offer_token())

    async def _offer_token(self) -> None:
        try:
            token = await self._credentials.renew()
        except TokenError:
            # The service disconnects when the old token expires; the renewal is tried again then.
            return
        self._perform(self.core.reauthorise(token))

    def _arm_timer(self) -> None:
        deadline = self.core.deadline()
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        self._stop_timer()
        self._timer_at = deadline
        delay = max(deadline - self._clock(), 0.0)
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._perform(self.core.tick(self._clock()))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
