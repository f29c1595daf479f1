"""Which server to connect to: the one of a URL, or the primary that Sentinel names at the moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import hiredis

from selfhost_transport.errors import InvalidArgument, StoreUnavailable
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.link import Link, pack

_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_FORM = "redis+sentinel://[user:password@]host:port[,host:port…]/service[/database]"
_DEFAULT_PORT = 26379
# A Sentinel that does not answer must not hold up what the others know.
_PATIENCE_S = 1.0


class Whereabouts(Protocol):
    """Asked before every attempt to connect, so that a fail-over is followed."""

    async def locate(self) -> Address:
        """Where the primary is now. Raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """One server, which the URL names."""

    address: Address

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
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def lost(error: Exception | None) -> None:
            answered.cancel()

        link = await Link.open(sentinel, answered.set_result, lost, _PATIENCE_S)
        try:
            link.write([pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service))])
            async with asyncio.timeout(_PATIENCE_S):
                await asyncio.wait([answered])
        except TimeoutError:
            raise StoreUnavailable(f"{sentinel.host}:{sentinel.port} does not answer") from None
        finally:
            link.close()
        if answered.cancelled() or answered.result() is None:
            raise StoreUnavailable(
                f"{sentinel.host}:{sentinel.port} does not know the service {self.service!r}"
            )
        if isinstance(answered.result(), hiredis.ReplyError):
            raise StoreUnavailable(f"{sentinel.host}:{sentinel.port} refuses to answer: {answered.result()}")
        host, port = answered.result()
        return host.decode(), int(port)


def whereabouts(url: str) -> Fixed | Sentinels:
    """Read an address: a plain Redis URL, or `redis+sentinel://` (TLS: `rediss+sentinel://`), whose query may name
    `sentinel_username` and `sentinel_password`. Raises InvalidArgument.
    """
    if url.partition("://")[0] not in _SCHEMES:
        return Fixed(Address.parse(url))
    try:
        return _sentinels(url)
    except ValueError as error:
        raise InvalidArgument(f"not an address of Sentinels ({_FORM}): {error}") from None


def _sentinels(url: str) -> Sentinels:
    parts = urlsplit(url)
    scheme = _SCHEMES[parts.scheme]
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
