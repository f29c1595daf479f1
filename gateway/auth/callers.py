"""A caller's request before authentication, and the identity that a host application returns (AUT-2, SDK-6)."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from selfhost_transport.settings_values import require_operation
from selfhost_transport.wire.tokens import parse_bearer

_PEER: Final = "selfhost_transport.peer"


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """A request or the upgrade of a websocket. Header names are lower case.

    `peer`: the address that opened the TCP connection; `client`: the same, or what a proxy on this machine says;
    None for a unix socket. `token`: the bearer or access token that came with it, or later in-band.
    """

    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    peer: str | None
    client: str | None
    token: str | None = None

    @classmethod
    def of(cls, connection: HTTPConnection) -> RequestInfo:
        """What a connection brings along."""
        client = client_address(connection)
        headers = {name.lower(): value for name, value in connection.headers.items()}
        query = dict(connection.query_params)
        peer = plain_address(connection.scope.get(_PEER, client))
        return cls(connection.url.path, headers, query, peer, client, _token(headers, query))


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Who a caller is, as the host application says.

    `client_id` None: anonymous; `*`: may name any. `capability`: channel pattern to operations. `expires_ms`: when
    the client has to authenticate again, ms since the epoch. `application` separates connections of tenants.
    Raises ValueError for an operation that does not exist: a typing error would take rights away in silence.
    """

    client_id: str | None
    capability: Mapping[str, list[str]] = field(default_factory=lambda: {"*": ["*"]})
    expires_ms: int | None = None
    application: str = "host"

    def __post_init__(self) -> None:
        for operations in self.capability.values():
            for operation in operations:
                require_operation(operation)


Identify: TypeAlias = Callable[[RequestInfo], Awaitable[HostIdentity | None] | HostIdentity | None]
"""A host application's hook: the caller, None to let keys and tokens decide, or an error of the tree to refuse."""


def client_address(connection: HTTPConnection) -> str | None:
    """Address of the client, as the server or a proxy that it believes gives it; None for a unix socket."""
    return plain_address(connection.client.host if connection.client else None)


def plain_address(host: str | None) -> str | None:
    """An address without the IPv6 form that a dual-stack socket gives IPv4 peers (`::ffff:127.0.0.1`)."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return host if mapped is None else str(mapped)


class RememberPeer:
    """Keeps the address of the TCP peer where middleware replaces the client's address by what proxies say."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        client = scope.get("client")
        if client:
            scope["client"] = (plain_address(client[0]), *client[1:])
        scope[_PEER] = scope["client"][0] if client else None
        await self._app(scope, receive, send)


def behind_local_proxies(app: ASGIApp) -> ASGIApp:
    """Believe what a proxy on this machine says of the client's address, without forgetting who says so."""
    believing: Any = ProxyHeadersMiddleware(cast(Any, app), trusted_hosts=["127.0.0.1", "::1"])
    return RememberPeer(believing)


def _token(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return parse_bearer(value)
    return query.get("access_token") or query.get("accessToken") or None
