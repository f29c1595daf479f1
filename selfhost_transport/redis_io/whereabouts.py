"""Which server to connect to: the one of a URL, or the primary that Sentinel or a Cluster names at the moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from selfhost_transport.errors import InvalidArgument, StoreUnavailable
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.cluster import ClusterNodes
from selfhost_transport.redis_io.link import ask

_SENTINEL = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_CLUSTER = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_SCHEMES = ("redis", "rediss", "unix", *_SENTINEL, *_CLUSTER)
_CLUSTER_FORM = "redis+cluster://[user:password@]host:port[,host:port…]"
_SENTINEL_FORM = "redis+sentinel://[user:password@]host:port[,host:port…]/service[/database]"
_DEFAULT_PORT = 26379


@dataclass(frozen=True, slots=True)
class Fixed:
    """One server, which the URL names."""

    address: Address
    moves: ClassVar[bool] = False

    @property
    def database(self) -> int:
        """The number of the database."""
        return self.address.database

    def __str__(self) -> str:
        return str(self.address)

    async def locate(self) -> Address:
        """Always the same."""
        return self.address


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Sentinels that watch `service`. `server` has everything for getting into it except its host and port."""

    sentinels: tuple[Address, ...]
    service: str
    server: Address
    moves: ClassVar[bool] = True

    @property
    def database(self) -> int:
        """The number of the database."""
        return self.server.database

    def __str__(self) -> str:
        return f"{self.service}@{','.join(f'{s.host}:{s.port}' for s in self.sentinels)}"

    async def locate(self) -> Address:
        """The primary that most of the Sentinels name: one that is cut off may still name an old one."""
        answers = await asyncio.gather(*(self._ask(s) for s in self.sentinels), return_exceptions=True)
        named = Counter(answer for answer in answers if isinstance(answer, tuple))
        if not named:
            why = "; ".join(sorted({str(answer) for answer in answers}))
            raise StoreUnavailable(f"no Sentinel names the primary of {self}: {why}")
        [((host, port), _)] = named.most_common(1)
        return self.server.at(host, port)

    async def _ask(self, sentinel: Address) -> tuple[str, int]:
        found = await ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        if found is None:
            raise StoreUnavailable(
                f"{sentinel.host}:{sentinel.port} does not know the service {self.service!r}"
            )
        return found[0].decode(), int(found[1])


def whereabouts(url: str) -> Fixed | Sentinels | ClusterNodes:
    """Read an address: a plain Redis URL; or one of several hosts with commas between them, `redis+sentinel://` or
    `redis+cluster://` (TLS: `rediss+…`). For Sentinels the query may name `sentinel_username` and
    `sentinel_password`. Raises InvalidArgument.
    """
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise InvalidArgument(
            f"not an address of a Redis: it begins with one of {', '.join(_SCHEMES)}, then ://"
        )
    try:
        if scheme in _SENTINEL:
            return _sentinels(url)
        return _cluster(url) if scheme in _CLUSTER else Fixed(Address.parse(url))
    except ValueError as error:
        form = _SENTINEL_FORM if scheme in _SENTINEL else _CLUSTER_FORM
        raise InvalidArgument(f"not an address of this kind ({form}): {error}") from None


def _cluster(url: str) -> ClusterNodes:
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    if not hosts or parts.path.strip("/0"):
        raise ValueError("the hosts are missing, or a database is named, which a Cluster does not have")
    plain = f"{_CLUSTER[parts.scheme]}://{login}{'@' if login else ''}"
    options = f"?{parts.query}" if parts.query else ""
    return ClusterNodes([Address.parse(f"{plain}{host}{options}") for host in hosts.split(",")])


def _sentinels(url: str) -> Sentinels:
    parts = urlsplit(url)
    scheme = _SENTINEL[parts.scheme]
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not hosts:
        raise ValueError("the hosts or the name of the service are missing")
    query = dict(parse_qsl(parts.query))
    user, password = query.pop("sentinel_username", None), query.pop("sentinel_password", None)
    options = f"?{urlencode(query)}" if query else ""
    server = Address.parse(f"{scheme}://{login}{'@' if login else ''}127.0.0.1/{database}{options}")
    return Sentinels(
        tuple(_sentinel(f"{scheme}://{host}{options}", user, password) for host in hosts.split(",")),
        unquote(service),
        server,
    )


def _sentinel(url: str, user: str | None, password: str | None) -> Address:
    port = urlsplit(url).port or _DEFAULT_PORT
    plain = Address.parse(url)
    return Address(plain.host, port, username=user, password=password, tls=plain.tls)
