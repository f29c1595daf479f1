"""REST beside the websocket: reading the history (protocol section 9), and cancelling past a backpressured socket."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from selfhost_transport.client.cancel_result import CancelResult
from selfhost_transport.client.connection.credentials import Credentials
from selfhost_transport.client.connection.endpoint import AGENT, PROTOCOL_VERSION, Endpoint
from selfhost_transport.client.connection.tls import describe_tls_failure
from selfhost_transport.errors import BadRequest, ErrorInfo, ServiceError, TransportError
from selfhost_transport.wire.codec import Format, unpack
from selfhost_transport.wire.details import decode_error
from selfhost_transport.wire.message import Message, decode_message

_TYPES = {Format.JSON: "application/json", Format.MSGPACK: "application/x-msgpack"}
_NEXT = re.compile(r'<[^>?]*\?([^>]*)>;\s*rel="?next"?')
# Said by the oldest page where retention has taken messages (HIS-6).
_TRUNCATED_AT = "x-truncated-at"
_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Messages newest first, each once in its newest state. `next_query` asks for the following page, if any.

    `truncated_at`, on the oldest page: the position up to which retention has taken messages.
    """

    messages: list[Message] = field(default_factory=list)
    next_query: str | None = None
    truncated_at: str | None = None


class RestClient:
    """Requests for one session; the gateway asked is the caller's choice each time."""

    def __init__(
        self,
        credentials: Credentials,
        channel: str,
        fmt: Format,
        tls: ssl.SSLContext | None = None,
        http: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._credentials = credentials
        self._channel = channel
        self._format = fmt
        # A gateway is reached directly, never by way of a proxy found in the environment.
        self._http = httpx.AsyncClient(
            timeout=_TIMEOUT_S, trust_env=False, verify=tls or True, transport=http
        )

    async def close(self) -> None:
        """Close idle connections."""
        await self._http.aclose()

    async def history(
        self, endpoint: Endpoint, *, from_serial: str | None, limit: int, conversation: bool = False
    ) -> HistoryPage:
        """The newest page up to a position. `conversation`: without the application's own messages beside it.

        Raises CapabilityError, ServiceError, TransportError.
        """
        query: dict[str, str | int] = {"limit": limit, "deletes": "told"}
        if conversation:
            query["conversation"] = "true"
        if from_serial:
            query["from_serial"] = from_serial
        return await self.page(endpoint, urlencode(query))

    async def page(self, endpoint: Endpoint, query: str) -> HistoryPage:
        """One page by the query that another page named."""
        response = await self._answer("GET", f"{endpoint.channel_url(self._channel)}/messages?{query}")
        items = _body(response, self._format)
        if not isinstance(items, list):
            raise ServiceError("the service answered a history request with something else than a list")
        fmt = _format_of(response, self._format)
        messages = [decode_message(item, fmt) for item in items if isinstance(item, Mapping)]
        return HistoryPage(messages, next_query(response), response.headers.get(_TRUNCATED_AT))

    async def cancel(self, endpoint: Endpoint, body: Mapping[str, str | bool]) -> CancelResult:
        """Cancel by the plain HTTP API; `body` names the turns. Raises as `history` does."""
        url = f"{endpoint.rest_url}/v1/sessions/{quote(self._channel, safe='')}/cancel"
        answer = _body(await self._answer("POST", url, body), Format.JSON)
        try:
            position, matched, ended = answer["position"], answer["matched"], answer["alreadyEnded"]
            rare = [answer.get(name) or () for name in ("denied", "hookFailed", "undecided")]
            return CancelResult(str(position), *(tuple(map(str, turns)) for turns in (matched, ended, *rare)))
        except (KeyError, TypeError) as error:
            raise ServiceError("the service answered a cancel with something else than its result") from error

    async def _answer(
        self, method: str, url: str, body: Mapping[str, str | bool] | None = None
    ) -> httpx.Response:
        response = await self._request(method, url, body)
        if response.status_code == 401 and self._credentials.renewable:
            error = error_of(response)
            if 40140 <= error.info.code <= 40149:
                await self._credentials.renew()
                response = await self._request(method, url, body)
        if response.status_code >= 400:
            raise error_of(response)
        return response

    async def _request(self, method: str, url: str, body: Mapping[str, str | bool] | None) -> httpx.Response:
        headers = {
            "Authorization": await self._credentials.header(),
            "Accept": _TYPES[self._format],
            "X-Ably-Version": PROTOCOL_VERSION,
            "Ably-Agent": AGENT,
        }
        try:
            return await self._http.request(method, url, headers=headers, json=body)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"the service cannot be reached over HTTP: {failure_reason(error, url)}"
            ) from error


def failure_reason(error: httpx.HTTPError, url: str) -> str:
    """Why a request got no answer, for a message to a person."""
    cause = error.__cause__ or error.__context__
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return describe_tls_failure(cause, httpx.URL(url).netloc.decode())
    return str(error) or type(error).__name__


def _format_of(response: httpx.Response, asked: Format) -> Format:
    """The format of an answer, which need not be the one that was asked for."""
    kind = response.headers.get("content-type", "")
    if "msgpack" in kind:
        return Format.MSGPACK
    return Format.JSON if "json" in kind else asked


def _body(response: httpx.Response, asked: Format) -> Any:
    try:
        return unpack(response.content, _format_of(response, asked))
    except BadRequest as error:
        raise ServiceError(f"the service sent an invalid body: {error}") from error


def next_query(response: httpx.Response) -> str | None:
    """The query of the page that follows, from the header `Link`; None: there is none."""
    for line in response.headers.get_list("link"):
        match = _NEXT.search(line)
        if match is not None:
            return match[1]
    return None


def error_of(response: httpx.Response) -> TransportError:
    """The error of a refused request; its body is JSON whatever was asked for (section 9.1)."""
    status = response.status_code
    try:
        wire = unpack(response.content, Format.JSON)
        info = decode_error(wire["error"])
    except (BadRequest, KeyError, TypeError):
        info = ErrorInfo(status * 100, status, f"the service answered with HTTP status {status}")
    return TransportError.from_info(info)
