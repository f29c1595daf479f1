"""Which web pages may use what a browser adds to a request by itself, and what counts as coming from this machine.

A browser sends cookies, and reaches addresses, for any page that its user has open. So what is known of a caller without
credentials in the request (a cookie's user, a proxy's header, a connection from this machine) counts only for pages of
this service's own origin and of those in `allowed_origins`. Credentials that the page gave itself count from anywhere.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from selfhost_transport.settings import GatewaySettings

_FORWARDING: Final = ("forwarded", "via", "x-real-ip", "x-forwarded-host", "x-forwarded-server")
"""Headers by which a proxy shows that the client is elsewhere, besides X-Forwarded-For, which names it."""
_EXPLICIT: Final = ("authorization", "origin", "host", "user-agent", "content-type", "x-ably-clientid")
"""Headers of a page's request that hold nothing of its user's that the page does not know."""
_DEFAULT_PORTS: Final = (":80", ":443")


class Origins:
    """What `allowed_origins` and `allowed_hosts` permit. Header names are lower case."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._allowed = frozenset(map(_plain, settings.allowed_origins))
        self._hosts = frozenset(name.lower() for name in settings.allowed_hosts)

    def is_allowed(self, origin: str) -> bool:
        """Whether pages of an origin may use their user's cookies here."""
        return _plain(origin) in self._allowed

    def is_foreign(self, headers: Mapping[str, str]) -> bool:
        """Whether a request is that of a page of another origin, which is not allowed."""
        origin = headers.get("origin")
        if origin is None:
            # Absent for reads without CORS, as by an image; browsers send this header instead.
            return headers.get("sec-fetch-site") in ("cross-site", "same-site")
        return not (self.is_allowed(origin) or is_same_origin(headers))

    def explicit(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers that count for a caller: of a foreign page's request, those that the page gave itself."""
        if not self.is_foreign(headers):
            return headers
        return {name: headers[name] for name in _EXPLICIT if name in headers}

    def is_local(self, client: str | None, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from this machine, and not for a page or a client from elsewhere.

        A page on any port of this machine counts as local; a host name that is not this machine's may be anyone's
        (DNS rebinding), unless it is one of `allowed_hosts`.
        """
        if not is_loopback(client) or any(name in headers for name in _FORWARDING):
            return False
        if not self.answers_to(headers.get("host", "")):
            return False
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site") != "cross-site"
        return self.is_allowed(origin) or is_same_origin(headers) or is_local_origin(origin)

    def answers_to(self, host: str) -> bool:
        """Whether a `Host` header names this machine, or one of `allowed_hosts`. None given: no browser asks."""
        name = _host_name(host)
        return not host or name in self._hosts or host.lower() in self._hosts or is_local_name(name)


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """Whether the page that asks was served under the same host and port, according to `Host`.

    The scheme is not compared: a TLS proxy in front takes it away.
    """
    origin, host = urlsplit(headers.get("origin", "")), headers.get("host", "")
    return bool(origin.netloc) and _without_default_port(origin.netloc) == _without_default_port(host)


def is_local_origin(origin: str) -> bool:
    """Whether an origin is a page that this machine serves."""
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and is_local_name(_host_name(parts.netloc))


def is_local_name(name: str) -> bool:
    """Whether a host name is always this machine: `localhost`, a name below it, or a loopback address."""
    return name == "localhost" or name.endswith(".localhost") or (bool(name) and is_loopback(name))


def is_loopback(host: str | None) -> bool:
    """Whether an address belongs to this machine; a unix socket, which has none, does too."""
    if host is None:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_guard(settings: GatewaySettings, *, accepts_development_key: bool) -> Origins | None:
    """Selects the hosts that are answered to; None for all of them.

    Where the development key is accepted, a name that is not this machine's is that of a page that has its name point
    here.
    """
    return Origins(settings) if settings.allowed_hosts or accepts_development_key else None


def _plain(origin: str) -> str:
    parts = urlsplit(origin)
    return f"{parts.scheme}://{_without_default_port(parts.netloc)}".lower()


def _without_default_port(netloc: str) -> str:
    netloc = netloc.lower()
    return next((netloc.removesuffix(port) for port in _DEFAULT_PORTS if netloc.endswith(port)), netloc)


def _host_name(host: str) -> str:
    """The name or address of a `host:port`."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")


def header_map(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers of an ASGI scope."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
