"""Requests of a connection that another process of the same group holds: passed on to it over a unix socket.

The processes of a group share one port, so that the system chooses which of them gets a request.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

logger = logging.getLogger(__name__)

HEADER: Final = "x-comet-sibling"
"""Marks a request whose credentials another process has verified."""
_NAME: Final = re.compile(r"[a-z0-9-]{1,64}")
_PASSED_BACK: Final = (
    "content-type",
    "cache-control",
    "x-accel-buffering",
    "x-ably-errorcode",
    "x-ably-errormessage",
)


class Siblings:
    """The other processes of a group, by the sockets in their folder; None: there are none."""

    def __init__(self, folder: Path | None, secret: bytes) -> None:
        self._folder = folder
        self._secret = secret
        self._clients: dict[str, httpx.AsyncClient] = {}

    def verified_application(self, request: Request) -> str | None:
        """The application whose credentials a process of this deployment has verified; None: it was not passed on."""
        mark, _, application = request.headers.get(HEADER, "").partition(" ")
        return (
            application if hmac.compare_digest(mark.encode(), self._mark_of(application).encode()) else None
        )

    def _mark_of(self, application: str) -> str:
        return hmac.new(self._secret, f"comet sibling\n{application}".encode(), hashlib.sha256).hexdigest()

    async def pass_on(self, name: str, request: Request, application: str, body: bytes) -> Response | None:
        """Have another process answer a request; None when it is gone."""
        client = self._client(name)
        if client is None:
            return None
        raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
        url = httpx.URL("http://sibling", raw_path=raw.partition(b"?")[0])
        mark = f"{self._mark_of(application)} {application}"
        # The name that the client used: the other process, too, answers to known ones only.
        headers = {HEADER: mark, "Host": request.headers.get("host", "")}
        sent = client.build_request(request.method, url, content=body, headers=headers)
        try:
            answer = await client.send(sent, stream=True)
        except httpx.TransportError as error:
            logger.warning("comet.sibling_unreachable name=%s error=%r", name, error)
            return None
        passed = {field: answer.headers[field] for field in _PASSED_BACK if field in answer.headers}
        return StreamingResponse(_lines_of(answer), status_code=answer.status_code, headers=passed)

    async def close(self) -> None:
        """Close the connections to the others."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self, name: str) -> httpx.AsyncClient | None:
        path = None if self._folder is None else socket_of(self._folder, name)
        if path is None:
            return None
        if name not in self._clients:
            transport = httpx.AsyncHTTPTransport(uds=str(path), limits=httpx.Limits(max_connections=None))
            self._clients[name] = httpx.AsyncClient(transport=transport, timeout=None)
        return self._clients[name]


def socket_of(folder: Path, name: str) -> Path | None:
    """Where a process of the group listens, if there is one."""
    path = folder / f"{name}.sock"
    return path if _NAME.fullmatch(name) and path.exists() else None


def listen_to_siblings(folder: Path, name: str) -> socket.socket:
    """The listening socket of this process in the folder of its group."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(folder / f"{name}.sock"))
    listening.listen(256)
    return listening


async def _lines_of(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.TransportError:
        # The process has ended: so does the answer, and the client reconnects.
        return
    finally:
        await answer.aclose()
