"""Resolves a URL to a server: its own, or the primary that Sentinel or a Cluster names."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar
from urllib.parse import parse_qsl, unquote, urlencode

from selfhost_transport.errors import InvalidArgument, StoreUnavailable
from selfhost_transport.redis_io.address import Address, split
from selfhost_transport.redis_io.cluster import ClusterNodes
from selfhost_transport.redis_io.link import ask

_SENTINEL = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_CLUSTER = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_SCHEMES = ("redis", "rediss", "unix", *_SENTINEL, *_CLUSTER)
_CLUSTER_FORM = "redis+cluster://[user:password@]host:port[,host:port…][?notifications=plain|sharded]"
NOTIFICATIONS = "notifications"
_SENTINEL_FORM = "redis+sentinel://[user:password@]host:port[,host:port…]/service[/database]"
_FORMS = dict.fromkeys(_SENTINEL, _SENTINEL_FORM) | dict.fromkeys(_CLUSTER, _CLUSTER_FORM)
_DEFAULT_PORT = 26379
_BELIEVED_S = 10.0
_SENTINEL_LOGIN = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class Fixed:
    """One server, which the URL names."""

    address: Address
    moves: ClassVar[bool] = False

    @property
    def database(self) -> int:
        """The number of the database."""
        return self.address.database

    @property
    def timeout_s(self) -> float | None:
        """How long to wait for a reply, where the URL states it."""
        return self.address.timeout_s

    def __str__(self) -> str:
        return str(self.address)

    def refused(self, text: str) -> None:
        """There is no other server."""

    async def locate(self) -> Address:
        """Always the same."""
        return self.address


@dataclass(slots=True)
class Sentinels:
    """Sentinels that watch `service`. `server` has everything for getting into it except its host and port."""

    sentinels: tuple[Address, ...]
    service: str
    server: Address
    # What the first of them announced, and until when that counts although the others do not know it yet.
    _announced: Address | None = None
    _believed_until: float = 0.0
    moves: ClassVar[bool] = True

    @property
    def database(self) -> int:
        """The number of the database."""
        return self.server.database

    @property
    def timeout_s(self) -> float | None:
        """How long to wait for a reply, where the URL states it."""
        return self.server.timeout_s

    def __str__(self) -> str:
        return f"{self.service}@{','.join(f'{s.host}:{s.port}' for s in self.sentinels)}"

    def refused(self, text: str) -> None:
        """The Sentinels say where another one is."""

    async def locate(self) -> Address:
        """The primary that most of the Sentinels name: one that is cut off may still name an old one."""
        if self._announced is not None and time.monotonic() < self._believed_until:
            return self._announced
        answers = await asyncio.gather(*(self._ask(s) for s in self.sentinels), return_exceptions=True)
        named = Counter(answer for answer in answers if isinstance(answer, tuple))
        if not named:
            why = "; ".join(sorted({str(answer) for answer in answers}))
            raise StoreUnavailable(f"no Sentinel names the primary of {self}: {why}")
        [((host, port), _)] = named.most_common(1)
        return self.server.at(host, port)

    def announce(self, host: str, port: int) -> bool:
        """A Sentinel says that this is the primary from now on; whether that is news."""
        address = self.server.at(host, port)
        if address == self._announced and time.monotonic() < self._believed_until:
            return False
        self._announced, self._believed_until = address, time.monotonic() + _BELIEVED_S
        return True

    async def _ask(self, sentinel: Address) -> tuple[str, int]:
        found = await ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        if found is None:
            raise StoreUnavailable(f"{sentinel.host}:{sentinel.port} has no service {self.service!r}")
        return found[0].decode(), int(found[1])


def address_resolver(url: str) -> Fixed | Sentinels | ClusterNodes:
    """Read an address: a plain Redis URL; or one of several hosts with commas between them, `redis+sentinel://` or
    `redis+cluster://` (TLS: `rediss+…`). For Sentinels the query may name `sentinel_username` and
    `sentinel_password`. Raises InvalidArgument.
    """
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise InvalidArgument(
            f"not an address of Redis: it begins with one of {', '.join(_SCHEMES)}, then ://"
        )
    if scheme not in _FORMS:
        return Fixed(Address.parse(url).checked())
    try:
        return _sentinels(url) if scheme in _SENTINEL else _cluster(url)
    except InvalidArgument as error:
        raise InvalidArgument(f"not an address of this kind ({_FORMS[scheme]}): {error}") from None


def _cluster(url: str) -> ClusterNodes:
    parts = split(url)
    login, _, hosts = parts.netloc.rpartition("@")
    plain = f"{_CLUSTER[parts.scheme]}://{login}{'@' if login else ''}"
    query = parse_qsl(parts.query, keep_blank_values=True)
    stated = [value for name, value in query if name == NOTIFICATIONS]
    if len(stated) > 1 or not {*stated} <= {"plain", "sharded"}:
        raise InvalidArgument(f"its option {NOTIFICATIONS} is plain or sharded")
    plain_query = urlencode([(name, value) for name, value in query if name != NOTIFICATIONS])
    options = f"?{plain_query}" if plain_query else ""
    seeds = [Address.parse(f"{plain}{host}{options}") for host in _hosts(hosts)]
    if parts.path.strip("/0") or seeds[0].database:
        raise InvalidArgument("a Cluster has no databases")
    return ClusterNodes(seeds, chosen=stated[0] if stated else None)


def with_notifications(url: str, kind: str) -> str:
    """The address of a Cluster that says which kind of notifications it has: `plain` or `sharded`."""
    return f"{url}{'&' if '?' in url else '?'}{NOTIFICATIONS}={kind}"


def _sentinels(url: str) -> Sentinels:
    parts = split(url)
    scheme = _SENTINEL[parts.scheme]
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise InvalidArgument("the service is missing")
    query = parse_qsl(parts.query, keep_blank_values=True)
    own = {name: value for name, value in query if name in _SENTINEL_LOGIN}
    options = f"?{urlencode([(name, value) for name, value in query if name not in own])}" if query else ""
    server = Address.parse(f"{scheme}://{login}{'@' if login else ''}127.0.0.1/{database}{options}").checked()
    return Sentinels(
        tuple(_sentinel(f"{scheme}://{host}{options}", own) for host in _hosts(hosts)),
        unquote(service),
        server,
    )


def _sentinel(url: str, login: dict[str, str]) -> Address:
    """TLS and times are those of the server; who one is, and the database, are not."""
    server = Address.parse(url)
    port = split(url).port or _DEFAULT_PORT
    return replace(
        server,
        port=port,
        database=0,
        username=login.get("sentinel_username"),
        password=login.get("sentinel_password"),
    )


def _hosts(listed: str) -> list[str]:
    hosts = listed.split(",")
    if not all(hosts):
        raise InvalidArgument("a host is missing")
    return hosts
