"""An Ably client with what a load test needs: connect, attach, publish, resume. One channel per connection."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from selfhost_transport.errors import ConnectionFailed, TransportError
from selfhost_transport.loadtest.framing import Opcode
from selfhost_transport.loadtest.incoming import (
    READERS,
    Incoming,
    IncomingError,
    IncomingResult,
)
from selfhost_transport.loadtest.plan import Target
from selfhost_transport.loadtest.recorder import Metric, Recorder
from selfhost_transport.loadtest.socket import LoadSocket
from selfhost_transport.wire.actions import Action, Flag
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, encode_frame
from selfhost_transport.wire.message import Message

ANSWER_TIMEOUT_S = 15.0
FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 3.0
# A member of an enum is looked up at each use; this one is compared with at every frame.
_MESSAGE = Action.MESSAGE.value


class Receiver(Protocol):
    """Where the frames of the channel go."""

    @property
    def last_serial(self) -> str:
        """What to resume from; '' before anything came."""

    def attached(self, serial: str | None, *, resumed: bool) -> None:
        """ATTACHED."""

    def deliver(self, frame: Incoming) -> None:
        """MESSAGE."""


class Refused(TransportError):
    """The gateway answered with NACK or ERROR."""

    def __init__(self, error: IncomingError | None) -> None:
        error = error or IncomingError()
        super().__init__(error.message, code=error.code, status_code=error.status_code)


@dataclass(slots=True)
class _Pending:
    """A publish without an answer; sent again after a reconnect."""

    messages: Sequence[Message]
    answer: asyncio.Future[IncomingResult]


class Client:
    """One connection, attached to one channel. It reconnects by itself until it is closed."""

    def __init__(
        self,
        target: Target,
        number: int,
        channel: str,
        fmt: Format,
        client_id: str,
        receiver: Receiver,
        recorder: Recorder,
    ) -> None:
        self.client_id = client_id
        self._target = target
        # Which of several gateways is tried first.
        self._number = number
        self._channel = channel
        self._format = fmt
        self._reader = READERS[fmt]
        self._opcode = Opcode.TEXT if fmt is Format.JSON else Opcode.BINARY
        self._receiver = receiver
        self._recorder = recorder
        self._socket: LoadSocket | None = None
        self._connected: asyncio.Future[str] | None = None
        self._attached: asyncio.Future[None] | None = None
        self._key = ""
        self._connection_id = ""
        self._next_serial = 0
        self._pending: dict[int, _Pending] = {}
        self._usable = False
        self._closed = False
        self._reconnecting: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether frames can leave."""
        return self._usable

    async def start(self) -> None:
        """Connect and attach. Raises ConnectionFailed, or Refused."""
        await self._open(self._number)

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[IncomingResult]:
        """Send one frame; the answer may raise Refused. While the socket is gone it waits for the next."""
        answer: asyncio.Future[IncomingResult] = asyncio.get_running_loop().create_future()
        serial, self._next_serial = self._next_serial, self._next_serial + 1
        self._pending[serial] = _Pending(messages, answer)
        if self._usable:
            self._send_pending(serial)
        return answer

    def drop(self) -> None:
        """Lose the socket, as a phone in a tunnel does."""
        if self._socket is not None:
            self._socket.abort()

    def stop_reading(self) -> None:
        """Let the gateway's buffers fill."""
        if self._socket is not None:
            self._socket.stop_reading()

    def go_on(self) -> None:
        """Read again."""
        if self._socket is not None:
            self._socket.go_on()

    async def close(self) -> None:
        """End the connection for good."""
        self._closed = True
        self._usable = False
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
        if self._socket is not None:
            self._socket.send(self._opcode, encode_frame(Frame(Action.CLOSE), self._format))
            self._socket.abort()
        for pending in self._pending.values():
            pending.answer.cancel()

    async def _open(self, attempt: int) -> None:
        loop = asyncio.get_running_loop()
        started = time.time()
        self._connected = loop.create_future()
        url = self._target.socket_url(attempt, self._format, self.client_id, self._key)
        self._socket = await LoadSocket.open(
            url, self._on_message, self._on_lost, headers=self._target.headers
        )
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            connection_id = await self._connected
            self._recorder.record(Metric.CONNECT, time.time() - started)
            if connection_id != self._connection_id:
                self._renumber(connection_id)
            # Frames without an answer go first (section 4.5).
            for serial in self._pending:
                self._send_pending(serial)
            self._usable = True
            await self._attach()

    async def _attach(self) -> None:
        started = time.time()
        self._attached = asyncio.get_running_loop().create_future()
        serial = self._receiver.last_serial or None
        self._send(Frame(Action.ATTACH, channel=self._channel, channel_serial=serial))
        await self._attached
        self._recorder.record(Metric.ATTACH, time.time() - started)

    def _renumber(self, connection_id: str) -> None:
        self._connection_id = connection_id
        self._pending = dict(enumerate(self._pending.values()))
        self._next_serial = len(self._pending)

    def _send(self, frame: Frame) -> None:
        if self._socket is not None:
            self._socket.send(self._opcode, encode_frame(frame, self._format))

    def _send_pending(self, serial: int) -> None:
        messages = list(self._pending[serial].messages)
        self._send(Frame(Action.MESSAGE, channel=self._channel, msg_serial=serial, messages=messages))

    def _on_message(self, payload: bytes) -> None:
        frame = self._reader.frame(payload)
        action = frame.action
        if action == _MESSAGE:
            self._receiver.deliver(frame)
        elif action in (Action.ACK, Action.NACK):
            self._on_answer(frame)
        elif action == Action.ATTACHED:
            self._on_attached(frame)
        elif action == Action.CONNECTED:
            self._on_connected(frame)
        elif action in (Action.ERROR, Action.DETACHED, Action.DISCONNECTED):
            self._on_refused(frame)

    def _on_connected(self, frame: Incoming) -> None:
        if frame.connection_details is not None:
            self._key = frame.connection_details.connection_key
        if self._connected is not None and not self._connected.done():
            self._connected.set_result(frame.connection_id or "")

    def _on_attached(self, frame: Incoming) -> None:
        resumed = bool(frame.flags & Flag.RESUMED)
        if self._receiver.last_serial and not resumed:
            self._recorder.counters["discontinuities"] += 1
        self._receiver.attached(frame.channel_serial, resumed=resumed)
        if self._attached is not None and not self._attached.done():
            self._attached.set_result(None)

    def _on_answer(self, frame: Incoming) -> None:
        first = frame.msg_serial or 0
        for index, serial in enumerate(range(first, first + frame.count)):
            pending = self._pending.pop(serial, None)
            if pending is None or pending.answer.done():
                continue
            if frame.action == Action.NACK:
                pending.answer.set_exception(Refused(frame.error))
            else:
                results = frame.res or []
                pending.answer.set_result(results[index] if index < len(results) else IncomingResult())

    def _on_refused(self, frame: Incoming) -> None:
        error = Refused(frame.error)
        self._recorder.counters[f"refused_{error.info.code}"] += 1
        for waiting in (self._connected, self._attached):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)
                return
        self.drop()

    def _on_lost(self, reason: str) -> None:
        self._usable = False
        self._socket = None
        lost = ConnectionFailed(reason)
        for waiting in (self._connected, self._attached):
            if waiting is not None and not waiting.done():
                waiting.set_exception(lost)
        if not self._closed and (self._reconnecting is None or self._reconnecting.done()):
            self._recorder.counters["lost_sockets"] += 1
            self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        """Come back with jitter, to the next gateway on every failure, as long as it takes."""
        lost = time.time()
        delay = FIRST_RETRY_S
        attempt = self._number
        while not self._closed:
            await asyncio.sleep(random.uniform(0, delay))  # the jitter of a real client
            attempt += 1
            try:
                await self._open(attempt)
            except (TransportError, TimeoutError):
                delay = min(delay * 2, LONGEST_RETRY_S)
                self.drop()
                continue
            self._recorder.record(Metric.RECONNECT, time.time() - lost)
            return
