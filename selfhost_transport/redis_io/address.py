"""Where a Redis is, and how to get in: everything a URL says, read by the redis package."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.connection import parse_url

from selfhost_transport.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Address:
    """One server. `path` is a unix socket and wins over host and port."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    # Refuse a server that is a replica: whoever named it as the primary may be behind the times.
    primary: bool = False

    def at(self, host: str, port: int) -> Address:
        """The same way in, at another server, which must be a primary."""
        return replace(self, host=host, port=port, primary=True)

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}/{self.database}"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `redis://`, `rediss://` (TLS) or `unix://`, with the redis package's query options.

        Raises InvalidArgument for anything else.
        """
        try:
            options: dict[str, Any] = dict(parse_url(url))
        except ValueError as error:
            raise InvalidArgument(f"not a Redis URL: {error}") from None
        return cls(
            host=options.get("host", "127.0.0.1"),
            port=options.get("port", 6379),
            path=options.get("path"),
            database=int(options.get("db", 0)),
            username=options.get("username"),
            password=options.get("password"),
            tls=_tls(options) if urlsplit(url).scheme == "rediss" else None,
        )


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(
        cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path")
    )
    if options.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context
