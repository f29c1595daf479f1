"""A model provider on loopback: real HTTP, the providers' event streams, and an eye on who hangs up when."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Frame = bytes
Check = Callable[[dict[str, Any]], str | None]


class Then(Enum):
    """What follows the frames of an answer."""

    END = "end"  # a proper end of the body
    HANG = "hang"  # silence
    REPEAT = "repeat"  # the last frame again and again
    CUT = "cut"  # the connection is closed in the middle of the body


@dataclass(slots=True)
class Answer:
    """One scripted HTTP answer. `headers_sent` False: it is silent before its first byte. `headers`: more of them."""

    frames: Sequence[Frame] = ()
    then: Then = Then.END
    status: int = 200
    body: dict[str, Any] | None = None
    headers_sent: bool = True
    headers: Sequence[str] = ()


@dataclass(slots=True)
class Exchange:
    """One request and what became of it."""

    path: str
    body: dict[str, Any]
    # The client's port: the same for requests over one connection.
    peer: int = 0
    # Set when the scripted frames have been sent.
    sent: asyncio.Event = field(default_factory=asyncio.Event)
    # Set when the client has closed the connection.
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    closed_at: float = 0.0


class Provider:
    """Gives its answers in order; the last one also to every later request."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        # Judges each request's body; a text is the reason of a 400.
        self.check: Check | None = None
        self._answers: list[Answer] = []
        self._open: list[Exchange] = []
        self._server: asyncio.Server | None = None
        self._arrived = asyncio.Condition()

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        for exchange in self._open:
            exchange.closed.set()
        await self._server.wait_closed()

    @property
    def answers(self) -> list[Answer]:
        """What is left to be given. Exchanges are counted from where it was set."""
        return self._answers

    @answers.setter
    def answers(self, answers: list[Answer]) -> None:
        self._answers, self.exchanges = answers, []

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def exchange(self, number: int = 0) -> Exchange:
        """The n-th request, once it has arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.exchanges) > number)
        return self.exchanges[number]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (exchange := await _read_request(reader)) is not None:
                exchange.peer = writer.get_extra_info("peername")[1]
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                async with self._arrived:
                    self.exchanges.append(exchange)
                    self._open.append(exchange)
                    self._arrived.notify_all()
                reason = self.check(exchange.body) if self.check else None
                if reason is not None:
                    answer = Answer(status=400, body={"error": {"message": reason, "type": "invalid"}})
                if not await self._answer(exchange, answer, reader, writer):
                    break
        finally:
            writer.close()

    async def _answer(
        self, exchange: Exchange, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether the connection can be used again."""
        watching = asyncio.create_task(_watch(exchange, reader)) if answer.then is not Then.END else None
        try:
            await self._write(exchange, answer, writer)
        except ConnectionError:
            return False
        finally:
            if watching is not None:
                await exchange.closed.wait()
                await watching
        return answer.then is Then.END

    async def _write(self, exchange: Exchange, answer: Answer, writer: asyncio.StreamWriter) -> None:
        if answer.body is not None:
            _write_json(writer, answer)
            return
        if answer.headers_sent:
            kind = "content-type: text/event-stream"
            if any(header.startswith("content-type:") for header in answer.headers):
                kind = "x-scripted: yes"
            head = ("HTTP/1.1 200 OK", kind, "transfer-encoding: chunked", *answer.headers, "", "")
            writer.write("\r\n".join(head).encode())
        for frame in answer.frames:
            _write_chunk(writer, frame)
        await writer.drain()
        exchange.sent.set()
        match answer.then:
            case Then.END:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            case Then.CUT:
                writer.close()
                exchange.closed.set()
            case Then.REPEAT:
                await self._repeat(exchange, answer.frames[-1], writer)
            case Then.HANG:
                await exchange.closed.wait()

    async def _repeat(self, exchange: Exchange, frame: Frame, writer: asyncio.StreamWriter) -> None:
        while not exchange.closed.is_set():
            _write_chunk(writer, frame)
            await writer.drain()
            await asyncio.sleep(0.005)  # the rate of the stream


async def _read_request(reader: asyncio.StreamReader) -> Exchange | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Exchange(lines[0].split(" ")[1], json.loads(body or b"{}"))


async def _watch(exchange: Exchange, reader: asyncio.StreamReader) -> None:
    """A client that waits for an answer sends nothing: whatever can be read is the end."""
    with contextlib.suppress(ConnectionError):
        await reader.read(1)
    exchange.closed_at = asyncio.get_running_loop().time()
    exchange.closed.set()


def _write_json(writer: asyncio.StreamWriter, answer: Answer) -> None:
    body = json.dumps(answer.body).encode()
    head = (
        f"HTTP/1.1 {answer.status} X", "content-type: application/json", f"content-length: {len(body)}",
        *answer.headers, "", "",
    )  # fmt: skip
    writer.write("\r\n".join(head).encode() + body)


def _write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def data(value: dict[str, Any] | str) -> Frame:
    """An event without a name, as Chat Completions sends them."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"data: {text}\n\n".encode()


def named(value: dict[str, Any]) -> Frame:
    """An event whose name is its `type`, as Responses and Messages send them."""
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()
