"""A service that says what the test tells it to: sockets without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from selfhost_transport.client import ClientTransport
from selfhost_transport.client.options import ClientOptions
from selfhost_transport.errors import ConnectionFailed, ErrorInfo
from selfhost_transport.wire.actions import Action, Flag
from selfhost_transport.wire.codec import Format, pack
from selfhost_transport.wire.frame import AckResult, ConnectionDetails, Frame, decode_frame, encode_frame
from selfhost_transport.wire.message import Message, encode_message
from selfhost_transport.wire.receipts import CancelReceipt, TurnReceipt

CHANNEL = "chat:1"
EPOCH = "abcdefghij"
KEY = "app.key:secret"


def serial(number: int, epoch: str = EPOCH) -> str:
    """A channelSerial."""
    return f"{number:014d}-000@{epoch}"


class ScriptedSocket:
    """One socket as the service's end sees it."""

    def __init__(self, url: str, authorization: str) -> None:
        self.url = url
        self.authorization = authorization
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.format = Format(self.query["format"])
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.is_open = True
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()

    # The client's end

    def send(self, payload: str | bytes) -> None:
        if self.is_open:
            self.frames.put_nowait(decode_frame(payload, self.format))

    async def receive(self) -> str | bytes:
        payload = await self._incoming.get()
        if payload is None:
            raise ConnectionFailed("cut", code=80003)
        return payload

    def abort(self) -> None:
        self.cut()

    async def close(self) -> None:
        self.cut()

    # The service's end

    def cut(self) -> None:
        """The network fails."""
        if self.is_open:
            self.is_open = False
            self._incoming.put_nowait(None)

    def deliver(self, frame: Frame) -> None:
        """The service sends a frame."""
        self._incoming.put_nowait(encode_frame(frame, self.format))

    async def next(self, action: Action) -> Frame:
        """The next frame of this kind that the client sends; others in between are a failure."""
        async with asyncio.timeout(5):
            frame = await self.frames.get()
        assert frame.action == action, f"expected {action!r}, got {frame!r}"
        return frame

    def connected(self, connection_id: str = "conn", **details: object) -> None:
        """Accept the connection."""
        given = ConnectionDetails(connection_key=f"{connection_id}!key", client_id=self.query.get("clientId"))
        for name, value in details.items():
            setattr(given, name, value)
        self.deliver(Frame(Action.CONNECTED, connection_id=connection_id, connection_details=given))

    def attached(self, number: int, *, resumed: bool = False, agent: str | None = "assistant") -> None:
        """Accept the attach."""
        flags = Flag.RESUMED if resumed else Flag.NONE
        params = {"turns": agent} if agent is not None else None
        self.deliver(
            Frame(
                Action.ATTACHED,
                channel=CHANNEL,
                channel_serial=serial(number),
                flags=int(flags),
                params=params,
            )
        )

    def messages(self, number: int, *messages: Message) -> None:
        """Deliver a publish at a position."""
        self.deliver(
            Frame(Action.MESSAGE, channel=CHANNEL, channel_serial=serial(number), messages=list(messages))
        )

    def ack(
        self,
        frame: Frame,
        *,
        turn: TurnReceipt | None = None,
        cancel: CancelReceipt | None = None,
        serials: list[str | None] | None = None,
    ) -> None:
        """Acknowledge a publish."""
        result = AckResult(serials if serials is not None else ["s"], turn, cancel)
        self.deliver(Frame(Action.ACK, msg_serial=frame.msg_serial, count=1, res=[result]))

    def nack(self, frame: Frame, error: ErrorInfo) -> None:
        """Refuse a publish."""
        self.deliver(Frame(Action.NACK, msg_serial=frame.msg_serial, count=1, error=error))


class ScriptedService:
    """Takes the place of the network."""

    def __init__(self) -> None:
        self.sockets: list[ScriptedSocket] = []
        self.urls: list[str] = []
        # Hosts that cannot be reached.
        self.unreachable: set[str] = set()
        self._dialed: asyncio.Queue[ScriptedSocket] = asyncio.Queue()
        # What the history holds, oldest first; requests for it as they came, and errors to answer the next with.
        self.history: list[Message] = []
        self.requests: list[httpx.Request] = []
        self.failures: list[ErrorInfo] = []
        self.http = httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        """A page of the history, newest first; its cursor is the number of messages before it."""
        self.requests.append(request)
        if self.failures:
            error = self.failures.pop(0)
            return httpx.Response(error.status_code, json={"error": error.to_wire()})
        query = dict(request.url.params)
        known = [m for m in self.history if (m.serial or "") < query.get("from_serial", "~") + ":999"]
        limit, skip = int(query["limit"]), int(query.get("cursor", "0"))
        page = known[::-1][skip : skip + limit]
        following = urlencode({**query, "cursor": skip + limit})
        more = skip + limit < len(known)
        content = pack([encode_message(m, Format.MSGPACK) for m in page], Format.MSGPACK)
        links = [("link", f'<./messages?limit={limit}>; rel="first"')]
        links += [("link", f'<./messages?{following}>; rel="next"')] if more else []
        return httpx.Response(200, content=content, headers=links)

    async def dial(self, url: str, headers: Mapping[str, str]) -> ScriptedSocket:
        """What the client calls."""
        self.urls.append(url)
        if urlsplit(url).hostname in self.unreachable:
            raise ConnectionFailed("refused")
        socket = ScriptedSocket(url, headers["Authorization"])
        self.sockets.append(socket)
        self._dialed.put_nowait(socket)
        return socket

    async def accept(self) -> ScriptedSocket:
        """The next socket that the client opens."""
        async with asyncio.timeout(5):
            return await self._dialed.get()

    def transport(self, **arguments: Any) -> ClientTransport:
        """A client of this service that reads no history, and retries without waiting long."""
        defaults = ClientOptions(history_limit=0, retry_initial=0.001, retry_max=0.01)
        given = {"client_id": "user-1", "key": KEY, "options": defaults, **arguments}
        if given.get("token") or given.get("auth_callback"):
            given["key"] = None
        return ClientTransport("ws://one", channel=CHANNEL, dial=self.dial, http=self.http, **given)

    async def open(
        self, *, agent: str | None = "assistant", **arguments: Any
    ) -> tuple[ClientTransport, ScriptedSocket]:
        """A client that is attached at position 100."""
        transport = self.transport(**arguments)
        opening = asyncio.create_task(transport.open())
        socket = await self.accept()
        socket.connected()
        await socket.next(Action.ATTACH)
        socket.attached(100, agent=agent)
        await opening
        return transport, socket
