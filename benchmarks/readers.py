"""Readers of event streams and websockets that only count, in a process of their own so that they cost the gateway nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
import resource
import socket
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from benchmarks.rig import KEY, TOKEN
from selfhost_transport.loadtest.framing import Opcode, client_frame
from selfhost_transport.loadtest.plan import Target
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, encode_frame

_AT_ONCE = 50
_READY_S = 120.0
_QUIET_S = 0.3
_MARK = TOKEN.strip().encode()


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `{}` in the path is the reader's number. `first`: what is sent once the connection stands."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    first: bytes = b""

    @classmethod
    def websocket(cls, session: str) -> Request:
        """An Ably connection that attaches to a session."""
        url = Target.parse(["http://127.0.0.1:1"], KEY, "").socket_url(0, Format.JSON, "viewer")
        attach = encode_frame(Frame(Action.ATTACH, channel=session), Format.JSON)
        return cls("GET", url[url.index("/?") :], first=client_frame(Opcode.TEXT, attach))

    def bytes(self, number: int) -> bytes:
        """On the wire."""
        body = b"" if self.body is None else json.dumps(self.body).encode()
        lines = [f"{self.method} {self.path.replace('{}', str(number))} HTTP/1.1", "Host: 127.0.0.1"]
        if self.first:
            lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]  # fmt: skip
        else:
            lines.append(f"X-Ably-ClientId: {base64.b64encode(b'reader').decode()}")
        lines.append("Authorization: Basic " + base64.b64encode(KEY.encode()).decode())
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


class Readers:
    """So many readers, in a process of their own. Use as a context manager."""

    def __init__(self, address: str, request: Request, count: int) -> None:
        self._pipe, far = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_main, args=(far, address, request, count), daemon=True)

    async def __aenter__(self) -> Self:
        self._process.start()
        answer = await asyncio.to_thread(self._answer, _READY_S)
        if answer != "ready":
            raise RuntimeError(f"the readers did not get ready: {answer}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        await asyncio.to_thread(self._process.join)

    async def delivered(self) -> int:
        """How many chunks all readers got together, once nothing more comes."""
        last = -1
        while True:
            self._pipe.send("count")
            count = await asyncio.to_thread(self._answer, 10.0)
            if count == last:
                return int(count)
            last = count
            await asyncio.sleep(_QUIET_S)  # what counts as nothing more

    def _answer(self, patience_s: float) -> Any:
        if not self._pipe.poll(patience_s):
            return "no answer"
        return self._pipe.recv()


class _Reader(asyncio.Protocol):
    """Counts the marks in what it reads."""

    def __init__(self, request: bytes, first: bytes) -> None:
        self._request = request
        self._first = first
        self.marks = 0
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            status = data.split(b" ", 2)[1]
            if status not in (b"200", b"101"):
                self.opened.set_exception(RuntimeError(data.decode(errors="replace")[:500]))
                return
            self.opened.set_result(None)
            if self._first:
                self._transport.write(self._first)
        self.marks += data.count(_MARK)


async def _serve(pipe: Connection, address: str, request: Request, count: int) -> None:
    host, _, port = address.removeprefix("http://").partition(":")
    limit, readers = asyncio.Semaphore(_AT_ONCE), list[_Reader]()

    async def connect(number: int) -> None:
        async with limit:
            # A few addresses of loopback, so that ports do not run out.
            _, reader = await asyncio.get_running_loop().create_connection(
                lambda: _Reader(request.bytes(number), request.first), host, int(port), family=socket.AF_INET
            )
            await reader.opened
            readers.append(reader)

    await asyncio.gather(*map(connect, range(count)))
    pipe.send("ready")
    loop = asyncio.get_running_loop()

    def answer() -> None:
        pipe.recv()
        pipe.send(sum(reader.marks for reader in readers))

    loop.add_reader(pipe.fileno(), answer)
    await loop.create_future()


def _main(pipe: Connection, address: str, request: Request, count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 500)), hard))
    try:
        asyncio.run(_serve(pipe, address, request, count))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
