"""The requests of a connection over HTTP, as ably-js makes them: connect, recv, send, close, disconnect.

`/comet/connect` begins a connection as an upgrade does, and its answer is the first of those that carry frames to the
client. Of each later request the path has the connection's key: whose connection it is, and which process holds it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.auth.callers import RequestInfo
from gateway.comet.outlet import CometOutlet, CometResponse
from gateway.comet.siblings import Siblings
from gateway.http_format import read_raw_body
from gateway.realtime.driver import ConnectionDriver
from gateway.realtime.endpoint import Realtime
from gateway.services import Services
from selfhost_transport.errors import BadRequest, ConnectionFailed, NotFound
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.connection_key import ConnectionKey, read_connection_key, verify_connection_key

_LAST_WORDS: Final = {"close": Action.CLOSE, "disconnect": Action.DISCONNECT}


@dataclass(slots=True)
class _Link:
    socket: ConnectionDriver
    outlet: CometOutlet
    stream: bool
    # Requests that send are worked on one after the other.
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)

    def is_of(self, key: ConnectionKey, application: str) -> bool:
        """Whether a key is one of this transport: of this application, and not of a transport before it."""
        return (
            key.issued_ms >= self.socket.key_issued_ms and application == self.socket.core.credential.app_id
        )


class Comet:
    """All connections over HTTP that this process holds."""

    def __init__(self, services: Services, realtime: Realtime, siblings: Siblings) -> None:
        self._services = services
        self._realtime = realtime
        self._siblings = siblings
        self._links: dict[str, _Link] = {}
        self._headers = {"X-Ably-Serverid": services.server_id}
        self._body_limit = services.settings.gateway.max_frame_size

    async def handle(self, request: Request, segments: list[str]) -> Response:
        """One request under `/comet`. Raises the TransportError to answer with."""
        match [request.method, *segments]:
            case ["GET", "connect"]:
                return await self._connect(request)
            case ["GET", key, "recv"]:
                return await self._of_connection(request, key, "recv")
            case ["POST", key, "send"]:
                return await self._of_connection(request, key, "send")
            case ["GET" | "POST", key, "close" | "disconnect" as word]:
                return await self._of_connection(request, key, word)
        raise NotFound("no such path, or the method is not allowed on it")

    async def _connect(self, request: Request) -> Response:
        outlet = CometOutlet(f"{self._services.server_id}.")
        stream = request.query_params.get("stream") != "false"
        socket = await self._realtime.admit(request, outlet, text_only=True)
        if socket is not None:
            connection_id, link = socket.core.connection_id, _Link(socket, outlet, stream)
            self._links[connection_id] = link
            outlet.on_end = lambda: self._forget(connection_id, link)
        return CometResponse(outlet, stream=stream, headers=self._headers)

    def _forget(self, connection_id: str, link: _Link) -> None:
        if self._links.get(connection_id) is link:
            del self._links[connection_id]

    async def _of_connection(self, request: Request, key: str, what: str) -> Response:
        found, application = await self._verified(request, key)
        body = await read_raw_body(request, self._body_limit) if what == "send" else b""
        link = self._links.get(found.connection_id)
        if link is None and found.node not in ("", self._services.server_id):
            answer = await self._siblings.pass_on(found.node, request, application, body)
            if answer is not None:
                return answer
        if link is not None and not link.is_of(found, application):
            link = None
        if what in _LAST_WORDS:
            if link is not None:
                link.socket.receive(orjson.dumps({"action": int(_LAST_WORDS[what])}).decode())
            return Response(status_code=204, headers=self._headers)
        if link is None:
            raise ConnectionFailed(
                "this process does not hold the connection: reconnect and resume",
                code=Code.CONNECTION_EXPIRED,
            )
        if what == "recv":
            return CometResponse(link.outlet, stream=link.stream, headers=self._headers)
        return await self._send(link, body)

    async def _verified(self, request: Request, key: str) -> tuple[ConnectionKey, str]:
        """The key of a path, and the application that the request has credentials of."""
        secret = self._services.secret
        application = self._siblings.verified_application(request)
        if application is not None:
            return read_connection_key(secret, key), application
        credential = await self._services.authenticator.of_connection(RequestInfo.of(request))
        app_id, identity = credential.app_id, credential.identity
        if identity.may_assume_any:
            # It was named when connecting, and is no longer.
            return read_connection_key(secret, key), app_id
        return verify_connection_key(secret, key, app_id=app_id, client_id=identity.client_id), app_id

    async def _send(self, link: _Link, body: bytes) -> Response:
        """The frames of one request, in order; what they are answered with goes the way of all frames."""
        frames = _frames(body)
        async with link.sending:
            for frame in frames:
                link.socket.receive(frame)
                await link.socket.ready()
        return Response(status_code=204, headers=self._headers)


def _frames(body: bytes) -> list[str]:
    """The frames of a list as the texts that a websocket would bring. Raises BadRequest.

    Halves of characters, which the strict parser refuses, stay as they are: the connection puts them together.
    """
    try:
        try:
            frames = orjson.loads(body)
        except ValueError:
            frames = json.loads(body)
        if not isinstance(frames, list):
            raise BadRequest("the body is a list of frames", code=Code.INVALID_BODY)
        return [_text(frame) for frame in frames]
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}", code=Code.INVALID_BODY) from error


def _text(frame: object) -> str:
    try:
        return orjson.dumps(frame).decode()
    except TypeError:
        # Half a character, an integer over 64 bits, or nested deeper than 254 levels.
        return json.dumps(frame)
