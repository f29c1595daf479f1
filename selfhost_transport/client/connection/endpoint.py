"""Where the service is: one address for the websocket and for REST beside it (protocol sections 2.1 and 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from selfhost_transport.errors import InvalidArgument

PROTOCOL_VERSION = "6"
AGENT = "selfhost-transport-python/0.1"

_SCHEMES = {"ws": ("ws", "http"), "http": ("ws", "http"), "wss": ("wss", "https"), "https": ("wss", "https")}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One gateway. `netloc` is `host[:port]`, `path` what a proxy puts in front, without a trailing slash."""

    netloc: str
    secure: bool = False
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read `ws://host:port`, `wss://…`, or the same with http(s). Raises InvalidArgument."""
        if not isinstance(url, str):
            raise InvalidArgument(f"an endpoint is an address such as ws://host:8080, not {url!r}")
        try:
            parts = urlsplit(url if "://" in url else f"ws://{url}")
            is_usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            # A port that is no number, or no port; brackets that do not close.
            is_usable = False
        if not is_usable:
            raise InvalidArgument(f"an endpoint looks like ws://host:8080 or wss://host, not {url[:200]!r}")
        if parts.username is not None or parts.query:
            raise InvalidArgument("credentials and parameters are given as arguments, not in the endpoint")
        return cls(parts.netloc, _SCHEMES[parts.scheme][0] == "wss", parts.path.rstrip("/"))

    def socket_url(self, params: Mapping[str, str]) -> str:
        """The address of the websocket with its query."""
        return f"{'wss' if self.secure else 'ws'}://{self.netloc}{self.path}/?{urlencode(params)}"

    @property
    def rest_url(self) -> str:
        """The base of REST paths."""
        return f"{'https' if self.secure else 'http'}://{self.netloc}{self.path}"

    def channel_url(self, channel: str) -> str:
        """The REST resource of a channel."""
        return f"{self.rest_url}/channels/{quote(channel, safe='')}"


def parse_endpoints(url: str | None, endpoints: Sequence[str]) -> tuple[Endpoint, ...]:
    """All addresses to try, `url` first. Raises InvalidArgument when there is none."""
    further = [endpoints] if isinstance(endpoints, str) else endpoints
    given = [*([url] if url is not None else []), *further]
    if not given:
        raise InvalidArgument("give the address of a gateway, such as ws://localhost:8080")
    return tuple(dict.fromkeys(Endpoint.parse(item) for item in given))
