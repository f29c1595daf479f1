"""A websocket after its handshake, on the bare transport: no queue, no task, no coroutine for as long as it lives.

Complete, pre-encoded frames are written straight to the transport; what the client sends goes straight to a listener.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import MutableSet
from typing import Any, Final, Protocol

from websockets.frames import Close, CloseCode, Frame, Opcode

from gateway.background import Background
from gateway.websocket.frame_reader import Buffer, Inbound, Incoming, Unreadable
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport.accelerator import SENDS, SendBuffer

CLOSE_TIMEOUT_S: Final = 10.0
"""How long a client has to answer a close frame, and to read what was written before it."""
DEAF_TIMEOUT_S: Final = 1.0
"""How long the transport stays open after something that cannot be read, so that the client learns why."""
_BUFFER: Final = memoryview(bytearray(65_536))
"""Shared by all sockets: its contents are handled before the next read. asyncio's own way allocates 256 KB per read."""
_LOST_PINGS: Final = 2
_CLOSED: Final = WriteBatch()


class Listener(Protocol):
    """The consumer of a websocket. While it is `busy` it gets nothing more; `ready` returns when it is not."""

    @property
    def busy(self) -> bool: ...  # noqa: D102

    async def ready(self) -> None: ...  # noqa: D102

    def receive(self, raw: str | bytes) -> None: ...  # noqa: D102

    def too_large(self) -> None: ...  # noqa: D102

    def congested(self) -> None: ...  # noqa: D102

    def drained(self) -> None: ...  # noqa: D102

    def ended(self) -> None: ...  # noqa: D102


class RawSocket(asyncio.BufferedProtocol):
    """One websocket. `write` takes complete frames; `congested` while more than the limit waits to be sent.

    `connections` is the server's set of what it has to close when it stops. Reading begins with `start`.
    """

    key_prefix = ""

    __slots__ = (
        "_closing",
        "_connections",
        "_descriptor",
        "_early",
        "_held",
        "_inbound",
        "_listener",
        "_owed",
        "_read_closed",
        "_tasks",
        "_timer",
        "_transport",
        "_unanswered",
        "_write_batch",
        "buffer",
        "closed",
        "congested",
    )

    def __init__(
        self, transport: asyncio.Transport, connections: MutableSet[Any], max_size: int, early: bytes = b""
    ) -> None:
        self._transport = transport
        self._write_batch = _CLOSED
        # Where the compiled form may send by itself, from `start` on; -1: nowhere.
        self._descriptor = _plain_descriptor(transport) if SENDS else -1
        # Frames that wait for the end of a batch. Where all sending is left to the transport, nothing is done besides:
        # each further call is one for every frame of every reader.
        self.buffer = SendBuffer(transport.write if self._descriptor < 0 else self._write)
        # What the client sent before reading begins.
        self._early = early
        self._connections = connections
        self._inbound = Inbound(max_size)
        # Until it knows of the end.
        self._listener: Listener | None = None
        self._tasks: Background | None = None
        # What came while the listener was busy; None at the end: nothing more will come.
        self._held: deque[str | bytes | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # Pings since the last pong.
        self._unanswered = 0
        # The newest ping of the client that came while it did not read; its answer is that to all of them.
        self._owed: bytes | None = None
        # A close frame was sent.
        self._closing = False
        # The rest of what comes cannot be read.
        self._read_closed = False
        # Nothing more can be written.
        self.closed = False
        self.congested = False
        connections.add(self)

    def start(self, listener: Listener, tasks: Background, limit: int, write_batch: WriteBatch) -> None:
        """Begin to read. `limit`: bytes that may wait to be sent before the socket is congested."""
        self._listener, self._tasks, self._write_batch = listener, tasks, write_batch
        self._transport.set_write_buffer_limits(high=limit)
        self._note_room()
        self._transport.resume_reading()
        early, self._early = self._early, b""
        if self.closed:
            self._finish()
        elif early:
            self._receive(early)

    # The way out

    def write(self, frame: bytes) -> None:
        """Send one complete websocket frame, or forget it when the socket is gone."""
        if self.closed:
            return
        write_batch = self._write_batch
        if write_batch.open:
            self.buffer.add(frame, write_batch.buffers)
        elif self._descriptor < 0:
            self._transport.write(frame)
        else:
            self._write(frame)

    def flush(self) -> None:
        """Write what was joined."""
        self.buffer.flush()

    def _write(self, data: bytes) -> None:
        self._transport.write(data)
        self._note_room()

    def _note_room(self) -> None:
        """While something waits in the transport, all that follows goes behind it there."""
        transport = self._transport
        is_free = (
            self._descriptor >= 0 and not transport.get_write_buffer_size() and not transport.is_closing()
        )
        self.buffer.fd = self._descriptor if is_free else -1

    def _end_writing(self) -> None:
        """Nothing more can be written; what was joined still leaves."""
        self.closed = self.buffer.closed = True

    def ping(self) -> None:
        """Ask for a sign of life. A client that owes too many is gone.

        One that is behind with reading is not asked: it would find the question behind all the rest, and the listener
        ensures that it is closed in the end.
        """
        if self.congested:
            return
        if self._unanswered >= _LOST_PINGS:
            self._fail(CloseCode.INTERNAL_ERROR, "no pong")
            return
        self._unanswered += 1
        self.write(_PING)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close behind everything that was written."""
        if self._closing or self.closed:
            return
        self.write(_frame(Opcode.CLOSE, Close(code, reason).serialize()))
        self._closing = True
        self._end_writing()
        self._give_up_in(CLOSE_TIMEOUT_S)
        # The client's close frame must be read.
        self._transport.resume_reading()

    def abort(self) -> None:
        """Drop the connection with everything that waits."""
        self.buffer.fd = self._descriptor = -1
        self._transport.abort()

    def shutdown(self) -> None:
        """The server stops (uvicorn's contract for what is in its set of connections)."""
        self.close(CloseCode.SERVICE_RESTART)
        self.flush()
        self._transport.close()

    # The transport's callbacks

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport reads to."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes of the client have been read."""
        self._receive(_BUFFER[:nbytes])

    def _receive(self, data: Buffer) -> None:
        if self._read_closed:
            return
        try:
            for incoming in self._inbound.receive(data):
                self._take(incoming)
        except Unreadable as error:
            if error.code is CloseCode.MESSAGE_TOO_BIG and self._listener is not None and not self._closing:
                self._listener.too_large()
            self._fail(error.code, error.reason)

    def pause_writing(self) -> None:
        """More waits to be sent than the limit allows."""
        self.congested = self.buffer.congested = True
        if self._listener is not None:
            self._listener.congested()

    def resume_writing(self) -> None:
        """What waited has been sent."""
        self.congested = self.buffer.congested = False
        # It reads.
        self._unanswered = 0
        if self._owed is not None:
            owed, self._owed = self._owed, None
            self._answer_ping(owed)
        if self._listener is not None:
            self._listener.drained()

    def eof_received(self) -> None:
        """The client will send nothing more, not even a close frame: it is gone (RFC 6455, section 7.1.1).

        The transport closes once what waits has left; a client that does not read it is not waited for.
        """
        self.flush()
        self._end_writing()
        self._read_closed = True
        if self._timer is None:
            self._give_up_in(CLOSE_TIMEOUT_S)
        self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._connections.discard(self)
        # Before the descriptor can be another connection's.
        self.buffer.end()
        self._descriptor = -1
        self.closed = self._read_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self.congested and self._held is not None:
            # The peer will read no more: what it sent before is still handled.
            self.resume_writing()
        self._finish()
        # asyncio's transports keep a method of their own: without that circle they are freed at once.
        getattr(self._transport, "__dict__", {}).pop("_read_ready_cb", None)

    # The way in

    def _take(self, incoming: Incoming) -> None:
        if isinstance(incoming, Close):
            self._closed_by_client(incoming)
        elif not isinstance(incoming, Frame):
            self._message(incoming)
        elif incoming.opcode is Opcode.PING:
            self._answer_ping(bytes(incoming.data))
        else:
            self._unanswered = 0

    def _answer_ping(self, payload: bytes) -> None:
        """One pong may answer several pings (RFC 6455, 5.5.3): a client that does not read is owed a single one (P10)."""
        if self.congested:
            self._owed = payload
        else:
            self.write(_frame(Opcode.PONG, payload))

    def _message(self, raw: str | bytes) -> None:
        listener = self._listener
        if self._closing or listener is None:
            return
        if self._held is not None:
            self._held.append(raw)
            return
        listener.receive(raw)
        if listener.busy:
            self._hold(listener)

    def _hold(self, listener: Listener) -> None:
        """Read no further until the listener is ready."""
        assert self._tasks is not None
        self._held = deque()
        self._transport.pause_reading()
        self._tasks.start(self._deliver_held(listener, self._held))

    async def _deliver_held(self, listener: Listener, held: deque[str | bytes | None]) -> None:
        try:
            await listener.ready()
            while held and (raw := held.popleft()) is not None:
                if not self._closing:
                    listener.receive(raw)
                    await listener.ready()
        except BaseException:
            self.abort()
            raise
        finally:
            self._held = None
            self._transport.resume_reading()
            if self._read_closed:
                self._finish()

    def _closed_by_client(self, close: Close) -> None:
        """Answer a close frame, or take it as the answer to ours."""
        self._read_closed = True
        if not self._closing:
            code = CloseCode.NORMAL_CLOSURE if close.code == CloseCode.NO_STATUS_RCVD else close.code
            self.write(_frame(Opcode.CLOSE, Close(code, "").serialize()))
            self._closing = True
            self._end_writing()
            self._give_up_in(CLOSE_TIMEOUT_S)
        self.flush()
        self._transport.close()
        self._finish()

    def _fail(self, code: int, reason: str) -> None:
        """Close because of what the client sent, or did not send; further input is discarded."""
        self.close(code, reason)
        self._read_closed = True
        self._give_up_in(DEAF_TIMEOUT_S)

    def _finish(self) -> None:
        """Notify the listener of the end, behind input that it has not handled yet."""
        if self._held is not None:
            self._held.append(None)
        elif self._listener is not None:
            listener, self._listener = self._listener, None
            listener.ended()

    def _give_up_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.abort)


def _plain_descriptor(transport: asyncio.Transport) -> int:
    """The descriptor of a socket that asyncio writes to itself, byte for byte; -1 for TLS and for other event loops."""
    if transport.__class__.__module__ != "asyncio.selector_events":
        return -1
    used = transport.get_extra_info("socket")
    return -1 if used is None else int(used.fileno())


def _frame(opcode: Opcode, payload: bytes) -> bytes:
    return Frame(opcode, payload).serialize(mask=False)


_PING: Final = _frame(Opcode.PING, b"")
