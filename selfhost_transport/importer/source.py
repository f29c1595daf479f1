"""The other service: a channel's history over Ably's REST interface, oldest first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import httpx

from selfhost_transport.client.connection.backoff import Backoff
from selfhost_transport.client.connection.credentials import (
    KeyCredentials,
    TokenCredentials,
    make_credentials,
)
from selfhost_transport.client.connection.endpoint import AGENT, PROTOCOL_VERSION, Endpoint
from selfhost_transport.client.rest import next_query
from selfhost_transport.errors import (
    BadRequest,
    CapabilityError,
    ErrorInfo,
    InvalidArgument,
    NotFound,
    ServiceError,
    TransportError,
    Unauthorized,
)
from selfhost_transport.wire.codec import Format, unpack
from selfhost_transport.wire.details import decode_error
from selfhost_transport.wire.message import Message, decode_message

PAGE: Final = 1000
"""Messages per request; the most that the interface gives."""
ATTEMPTS: Final = 8
"""Times that a request is sent when the service is busy or away: about half a minute."""
_TIMEOUT_S: Final = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 10.0
_TRUNCATED_AT: Final = "x-truncated-at"


@dataclass(frozen=True, slots=True)
class SourcePage:
    """Messages in their newest state, oldest first. `truncated`: the service says that older ones are gone."""

    messages: list[Message] = field(default_factory=list)
    truncated: bool = False


class Source:
    """Reads with one key or token. Raises InvalidArgument for an address, a key or a token that cannot be one."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        token: str | None = None,
        http: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._endpoint = _endpoint(url)
        self._credentials = _credentials(key, token)
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, transport=http)

    def name_of(self, channel: str) -> str:
        """What an import remembers as its source."""
        return f"{self._endpoint.netloc}{self._endpoint.path}/{channel}"

    async def close(self) -> None:
        """Close idle connections."""
        await self._http.aclose()

    async def pages(self, channel: str, start_ms: int | None = None) -> AsyncIterator[SourcePage]:
        """The history of a channel, or what was created at or after a time.

        Requests that the service is too busy for are repeated. Raises Unauthorized, CapabilityError, NotFound, ServiceError,
        each with what to do.
        """
        query: dict[str, str | int] = {"direction": "forwards", "limit": PAGE, "deletes": "told"}
        if start_ms is not None:
            query["start"] = start_ms
        following: str | None = urlencode(query)
        while following is not None:
            # Always the channel's own path: a link cannot lead the key to another place.
            url = f"{self._endpoint.channel_url(channel)}/messages?{following}"
            response = await self._answer(url, channel)
            yield SourcePage(_messages(response, url), _TRUNCATED_AT in response.headers)
            following = next_query(response)

    async def _answer(self, url: str, channel: str) -> httpx.Response:
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, 1)
        for attempt in range(1, ATTEMPTS + 1):
            pause_s = backoff.next_delay()
            try:
                response = await self._http.get(url, headers=await self._headers())
            except httpx.HTTPError as error:
                failure: TransportError = ServiceError(
                    f"{self._endpoint.rest_url} cannot be reached: {str(error) or type(error).__name__}"
                )
                failure.__cause__ = error
            else:
                if response.status_code == 200:
                    return response
                failure = _explained(_error_of(response), channel, self._endpoint)
                if response.status_code != 429 and response.status_code < 500:
                    raise failure
                pause_s = max(pause_s, _retry_after_s(response))
            if attempt < ATTEMPTS:
                await asyncio.sleep(pause_s)  # the pace of trying again
        raise failure

    async def _headers(self) -> Mapping[str, str]:
        return {
            "Authorization": await self._credentials.header(),
            "Accept": "application/json",
            "X-Ably-Version": PROTOCOL_VERSION,
            "Ably-Agent": AGENT,
        }


def _endpoint(url: str) -> Endpoint:
    if "://" not in url:
        url = f"https://{url}"
    endpoint = Endpoint.parse(url)
    if endpoint.path.startswith("/channels"):
        raise InvalidArgument("the address of the source ends before /channels; channels are named apart")
    return endpoint


def _credentials(key: str | None, token: str | None) -> KeyCredentials | TokenCredentials:
    if key is None and token is None:
        raise InvalidArgument(
            "reading the source needs a key or a token of it: --key APP.KEYID:SECRET (or ABLY_API_KEY), or --token"
        )
    return make_credentials(key, token, None)


def _messages(response: httpx.Response, url: str) -> list[Message]:
    try:
        items = unpack(response.content, Format.JSON)
        if isinstance(items, list):
            return [decode_message(item, Format.JSON) for item in items if isinstance(item, Mapping)]
    except BadRequest as error:
        raise ServiceError(f"the source sent a history that cannot be read: {error}") from error
    raise ServiceError(
        f"{url.partition('?')[0]} answers with something else than a history: not Ably's REST interface"
    )


def _retry_after_s(response: httpx.Response) -> float:
    after = response.headers.get("retry-after", "")
    return min(float(after), _LONGEST_PAUSE_S) if after.isdecimal() else 0.0


def _error_of(response: httpx.Response) -> TransportError:
    status = response.status_code
    try:
        wire: Any = unpack(response.content, Format.JSON)
        return TransportError.from_info(decode_error(wire["error"]))
    except (BadRequest, KeyError, TypeError):
        return TransportError.from_info(
            ErrorInfo(status * 100, status, f"the source answered with HTTP status {status}")
        )


def _explained(error: TransportError, channel: str, endpoint: Endpoint) -> TransportError:
    """The same error, with what the person at the terminal can do about it."""
    where = endpoint.netloc
    match error:
        case CapabilityError():
            what = f"the key or token may not read {channel!r} at {where}: it needs `history` there"
        case Unauthorized():
            what = f"{where} refuses the key or token: give it whole, APP.KEYID:SECRET, of the application with the channel"
        case NotFound():
            what = f"{where} knows no such application or path: check --from and the key"
        case _:
            return error
    return type(error)(f"{what} ({error})", code=error.info.code, status_code=error.info.status_code)
