"""A push service and a browser: takes what a gateway posts, checks who sent it, and decrypts it as a browser does."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import http_ece
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from selfhost_transport.wire import vapid

Answer = int | Callable[["Posted"], int]
REASONS = {201: "Created", 404: "Not Found", 410: "Gone", 429: "Too Many Requests", 500: "Error"}


class Browser:
    """One subscription: its address at the service, and the private key that only a browser has."""

    def __init__(self, service: str, name: str) -> None:
        self.endpoint = f"{service}/send/{name}"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._auth = os.urandom(16)

    @property
    def subscription(self) -> dict[str, Any]:
        """As `PushSubscription.toJSON()` gives it."""
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": vapid.encode(point), "auth": vapid.encode(self._auth)}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}

    def read(self, body: bytes) -> dict[str, Any]:
        """Decrypt a message (RFC 8291). Raises http_ece.ECEException for one to another browser."""
        plain = http_ece.decrypt(body, private_key=self._key, auth_secret=self._auth, version="aes128gcm")
        return dict(orjson.loads(plain))


@dataclass
class Posted:
    """A request that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class PushService:
    """`answer` says how a message is taken: a status, or what gives one. `silent`: it takes them and says nothing."""

    url: str = ""
    public_key: str = ""
    posted: list[Posted] = field(default_factory=list)
    answer: Answer = 201
    silent: bool = False
    more: str = ""
    errors: list[str] = field(default_factory=list)
    open_connections: int = 0

    def of(self, browser: Browser) -> list[dict[str, Any]]:
        """What a browser was sent, decrypted."""
        path = browser.endpoint.removeprefix(self.url)
        return [browser.read(one.body) for one in self.posted if one.path == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request."""
        self.open_connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
            }
            one = Posted(
                head[0].split()[1], headers, await reader.readexactly(int(headers["content-length"]))
            )
            self.posted.append(one)
            try:
                self._check(one)
            except Exception as error:
                self.errors.append(repr(error))
            if self.silent:
                await reader.read()
                return
            status = self.answer(one) if callable(self.answer) else self.answer
            writer.write(
                f"HTTP/1.1 {status} {REASONS.get(status, 'x')}\r\ncontent-length: 0\r\nconnection: close\r\n"
                f"{self.more}\r\n".encode()
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open_connections -= 1
            writer.close()

    def _check(self, one: Posted) -> None:
        """Who sent it: RFC 8292. And what RFC 8030 wants."""
        scheme, _, rest = one.headers["authorization"].partition(" ")
        parts = dict(part.strip().split("=", 1) for part in rest.split(","))
        assert scheme == "vapid" and parts["k"].rstrip("=") == self.public_key
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _decode(parts["k"]))
        claims = jwt.decode(parts["t"], key, algorithms=["ES256"], audience=self.url)
        assert claims["sub"] == "mailto:ops@example.com"
        assert one.headers["content-encoding"] == "aes128gcm"
        assert int(one.headers["ttl"]) > 0 and len(one.headers["topic"]) <= 32


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@asynccontextmanager
async def push_service(public_key: str) -> AsyncIterator[PushService]:
    """A push service on a free port of this machine."""
    service = PushService(public_key=public_key)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, backlog=2048)
    async with server:
        service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield service
    assert not service.errors, service.errors
