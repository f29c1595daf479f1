"""Generator: what the load generator itself spends on a frame, checks and histograms included.

A process of its own plays the gateway: it answers the handshake, ATTACHED and a turn's frames, then sends each
connection its tokens on a schedule, one append each.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import multiprocessing
import os
import time
from multiprocessing.connection import Connection

from benchmarks.clients import ARRIVAL_TIMEOUT_S
from benchmarks.figures import Figure
from benchmarks.rig import Cpu, paced
from selfhost_transport.loadtest.clock import ClockOffset
from selfhost_transport.loadtest.plan import Load, Target
from selfhost_transport.loadtest.recorder import Recorder
from selfhost_transport.loadtest.session import LoadSession
from selfhost_transport.loadtest.verify import AskedTurn
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.actions import Action, MessageAction
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, encode_frame
from selfhost_transport.wire.message import Message, Version
from selfhost_transport.wire.serial import Position, format_item, format_position
from selfhost_transport.wire.template import AppendTemplate
from selfhost_transport.wire.websocket import ws_frame_header

_CONNECTIONS = 500
_RATE = 50.0
_EPOCH = "abcdefghij"
_RUN = "bench"
# Of RFC 6455, section 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HEADERS = {
    h.RUN_ID: "run-1",
    h.STREAM: "true",
    h.RUN_CLIENT_ID: "user-1",
    h.CODEC_MESSAGE_ID: "0d5b7a3c-6a4e-4f8e-9a53-1f0f6f3f1f4e",
    h.STEP_ID: "turn",
}


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    gateway = context.Process(target=_serve, args=(theirs, seconds), daemon=True)
    gateway.start()
    theirs.close()
    try:
        return asyncio.run(_watch(ours))
    finally:
        gateway.terminate()
        gateway.join()


async def _watch(link: Connection) -> list[Figure]:
    port = await asyncio.to_thread(link.recv)
    load = Load(turns=_CONNECTIONS, rate=_RATE, tokens=1_000_000, formats=tuple(Format))
    recorder = Recorder()
    target = Target.parse([f"ws://127.0.0.1:{port}"], "bench.key:secret", "")
    sessions = [
        LoadSession(target, load, _RUN, number, recorder, ClockOffset(shared=True))
        for number in range(_CONNECTIONS)
    ]
    for session in sessions:
        session.viewers[0].check.expect(AskedTurn("run-1", load.tokens, _RATE, time.time()))
        await session.open()
    recorder.begin()
    cpu = Cpu(os.getpid())
    link.send("go")
    sent = await asyncio.to_thread(link.recv)
    spent = cpu.spent_us()
    async with asyncio.timeout(ARRIVAL_TIMEOUT_S):
        while recorder.tokens < sent:  # noqa: ASYNC110 - the recorder tells no one, it would cost
            await asyncio.sleep(0.01)
    assert not recorder.violation_counts, recorder.recording().violations[:3]
    for session in sessions:
        await session.close()
    return [
        Figure("generator", f"{_CONNECTIONS} connections, a token each frame", spent / sent, "us per frame")
    ]


def _serve(link: Connection, seconds: float) -> None:
    asyncio.run(_Gateway(link, seconds).run())


class _Gateway:
    """Sends what a gateway would send to `_CONNECTIONS` viewers of as many sessions."""

    def __init__(self, link: Connection, seconds: float) -> None:
        self._link = link
        self._seconds = seconds
        self._streams: list[_Stream] = []

    async def run(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=_CONNECTIONS)
        self._link.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(self._link.recv)
        sent = await paced(_CONNECTIONS * _RATE, self._seconds, self._send, tick_s=0.001)
        self._link.send(sent)
        await asyncio.Event().wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        accept = base64.b64encode(hashlib.sha1(key.split(b":")[1].strip() + _GUID).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        fmt = Format.MSGPACK if b"format=msgpack" in request else Format.JSON
        stream = _Stream(writer, f"loadtest:{_RUN}-{len(self._streams)}", fmt)
        stream.connected()
        await reader.read(1)  # the ATTACH; nothing else comes
        stream.open()
        self._streams.append(stream)

    def _send(self, due: int) -> None:
        for _ in range(due):
            # Round and round: each in turn is the one that waited longest.
            stream = self._streams.pop(0)
            stream.append()
            self._streams.append(stream)


class _Stream:
    """One connection: an open message, and the tokens that follow."""

    def __init__(self, writer: asyncio.StreamWriter, channel: str, fmt: Format) -> None:
        self._writer = writer
        self._channel = channel
        self._format = fmt
        self._token = 0
        message = Message(
            name=h.AI_OUTPUT,
            client_id="assistant",
            serial=format_item(Position(1, 0), _EPOCH, 0),
            extras=h.make_extras(_HEADERS),
            action=MessageAction.CREATE,
        )
        self._message = message
        self._template = AppendTemplate(channel, message, fmt)

    def connected(self) -> None:
        """What a connection begins with."""
        self._write(encode_frame(Frame(Action.CONNECTED, connection_id="connection"), self._format))

    def open(self) -> None:
        """ATTACHED, and the message that the tokens are appended to."""
        serial = self._message.serial or ""
        self._message.version = Version(serial, 1)
        self._message.data = ""
        start = format_position(Position.ZERO, _EPOCH)
        for frame in (
            Frame(Action.ATTACHED, channel=self._channel, channel_serial=start),
            Frame(
                Action.MESSAGE,
                channel=self._channel,
                channel_serial=format_position(Position(1, 0), _EPOCH),
                messages=[self._message],
            ),
        ):
            self._write(encode_frame(frame, self._format))

    def append(self) -> None:
        """The next token."""
        now = time.time_ns() // 1_000_000
        position = Position(now, self._token % 1000)
        serial = format_position(position, _EPOCH)
        self._write(self._template.frame(serial, f"{self._token} ", f"{serial}:000", now))
        self._token += 1

    def _write(self, payload: bytes) -> None:
        self._writer.write(ws_frame_header(self._format is Format.JSON, len(payload)) + payload)
