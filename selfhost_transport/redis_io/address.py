"""Where a Redis is, and how to get in: everything a URL says, with the options of the redis package."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, unquote, urlsplit

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.redis_io import url_options
from selfhost_transport.redis_io.url_options import Options

_DEFAULT_PORT = 6379
_SCHEMES = ("redis", "rediss", "unix")


@dataclass(frozen=True, slots=True)
class Address:
    """One server. `path` is a unix socket and wins over host and port."""

    host: str = "127.0.0.1"
    port: int = _DEFAULT_PORT
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    # Refuse a server that is a replica: what named it as the primary may be out of date.
    primary: bool = False
    # Seconds, where the URL states them: to connect, and to wait for a reply.
    connect_timeout_s: float | None = None
    timeout_s: float | None = None
    keepalive: bool = True
    client_name: str | None = None
    # Where the URL names a database that is not a number: that name. No server has it.
    no_database: str | None = None

    def at(self, host: str, port: int) -> Address:
        """The same way in, at another server, which must be a primary."""
        return replace(self, host=host, port=port, primary=True)

    def checked(self) -> Address:
        """The same. Raises InvalidArgument for a database that is not a number."""
        if self.no_database is not None:
            raise InvalidArgument(f"not a Redis URL: the database is a number, not {self.no_database[:32]!r}")
        return self

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}/{self.database}"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `redis://`, `rediss://` (TLS) or `unix://`, with the redis package's options in the query.

        Raises InvalidArgument for anything else, also for an option that is not supported; no message has a password.
        """
        parts = split(url)
        if parts.scheme not in _SCHEMES:
            raise InvalidArgument(f"not a Redis URL: it begins with one of {', '.join(_SCHEMES)}, then ://")
        port = _port(parts)
        options = url_options.read(parts.query, tls=parts.scheme == "rediss")
        is_socket = parts.scheme == "unix"
        database, no_database = _database("" if is_socket else parts.path, options)
        if is_socket and not parts.path.strip("/"):
            raise InvalidArgument(
                "not a Redis URL: unix:// is followed by the path of a socket: unix:///run/redis.sock"
            )
        return cls(
            host="127.0.0.1" if is_socket else unquote(parts.hostname or "127.0.0.1"),
            port=port,
            path=unquote(parts.path) if is_socket else None,
            database=database,
            no_database=no_database,
            username=unquote(parts.username) if parts.username else options.username,
            password=unquote(parts.password) if parts.password else options.password,
            tls=options.tls,
            connect_timeout_s=options.connect_timeout_s,
            timeout_s=options.timeout_s,
            keepalive=options.keepalive,
            client_name=options.client_name,
        )


def split(url: str) -> SplitResult:
    """The parts of a URL. Raises InvalidArgument, without what the URL says: it may be a part of a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidArgument("not a Redis URL: its host cannot be read") from None
    if parts.fragment:
        raise InvalidArgument(
            "not a Redis URL: it has a `#`; in a password that is written %23, as ? is %3F, / is %2F and @ is %40"
        )
    return parts


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise InvalidArgument(
            "not a Redis URL: the port is not a number from 1 to 65535; in a password ? is written %3F, / is %2F, "
            "# is %23 and @ is %40"
        )
    return _DEFAULT_PORT if port is None else port


def _database(path: str, options: Options) -> tuple[int, str | None]:
    """The database, or what stands in its place. The query goes before the path, as in the redis package."""
    stated = unquote(path).strip("/")
    if options.database is not None:
        return options.database, None
    return (int(stated or 0), None) if not stated or stated.isdecimal() else (-1, stated)
