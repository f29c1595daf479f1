"""Bodies, errors, envelopes and links of the protocol's REST (protocol section 9.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_plus, urlencode

from starlette.requests import Request
from starlette.responses import Response

from selfhost_transport.errors import BadRequest, ErrorInfo, MessageTooLarge
from selfhost_transport.wire.codec import Format, pack, unpack
from selfhost_transport.wire.error_headers import error_headers

_TYPES: Final = {Format.JSON: "application/json", Format.MSGPACK: "application/x-msgpack"}
# Parameters that say how to answer, not what: they do not belong in links.
_NOT_IN_LINKS: Final = frozenset(
    {"rnd", "envelope", "format", "key", "access_token", "accessToken", "request_id", "cursor"}
)


@dataclass(slots=True)
class Reply:
    """An answer before it has a format. `links`: relation and relative URL. `headers`: further ones."""

    body: Any = None
    status: int = 200
    links: list[tuple[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


def path_segments(request: Request) -> list[str]:
    """The decoded segments of the path as it was sent: a channel name may contain an encoded `/`."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    root = request.scope.get("root_path", "").encode()
    path = raw.partition(b"?")[0].removeprefix(root).decode("ascii", "replace")
    return [unquote_plus(segment) for segment in path.strip("/").split("/")]


def answer_format(request: Request) -> Format:
    """The format of the answer: query `format`, else `Accept`."""
    asked = request.query_params.get("format")
    if asked in ("json", "msgpack"):
        return Format(asked)
    return Format.MSGPACK if "msgpack" in request.headers.get("accept", "") else Format.JSON


async def read_body(request: Request, limit: int) -> Any:
    """The decoded body. Raises MessageTooLarge above `limit` bytes, BadRequest 40001 if it cannot be read."""
    received = await read_raw_body(request, limit)
    if not received:
        raise BadRequest("the request needs a body", code=40001)
    is_msgpack = "msgpack" in request.headers.get("content-type", "")
    return unpack(received, Format.MSGPACK if is_msgpack else Format.JSON)


async def read_raw_body(request: Request, limit: int) -> bytes:
    """The body as it came. Raises MessageTooLarge above `limit` bytes."""
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > limit:
            raise MessageTooLarge(f"the request body exceeds {limit} bytes")
    return bytes(received)


def respond(request: Request, reply: Reply, server_id: str) -> Response:
    """A reply in the format asked for, in an envelope if one was asked for. One that says what failed is JSON."""
    fmt = answer_format(request)
    envelope = request.query_params.get("envelope")
    if envelope in ("json", "msgpack"):
        fmt = Format(envelope)
        links = ", ".join(_link(relation, url) for relation, url in reply.links)
        headers = {name.lower(): value for name, value in reply.headers.items()}
        headers |= {"link": links} if links else {}
        body = {"statusCode": reply.status, "headers": headers, "response": reply.body}
        return _response(pack(body, fmt), 200, fmt, server_id)
    if reply.body is None:
        return Response(status_code=204, headers={"X-Ably-Serverid": server_id})
    if reply.status >= 400:
        fmt = Format.JSON
    response = _response(pack(reply.body, fmt), reply.status, fmt, server_id)
    response.headers.update(reply.headers)
    for relation, url in reply.links:
        response.headers.append("Link", _link(relation, url))
    return response


def respond_error(request: Request, error: ErrorInfo, server_id: str) -> Response:
    """A refusal: always JSON, since browsers cannot read msgpack errors."""
    headers = error_headers(error)
    body: dict[str, Any] = {"error": error.to_wire()}
    status = error.status_code
    if request.query_params.get("envelope") in ("json", "msgpack"):
        lowered = {name.lower(): value for name, value in headers.items()}
        body = {"statusCode": status, "headers": lowered, "response": body}
        status = 200
    response = _response(pack(body, Format.JSON), status, Format.JSON, server_id)
    response.headers.update(headers)
    return response


def page_links(
    request: Request, resource: str, next_cursor: str | None, defaults: Mapping[str, str]
) -> list[tuple[str, str]]:
    """`first`, `current` and `next` of a page, relative to the requested resource."""
    given = {**defaults, **request.query_params}
    repeated = {name: value for name, value in given.items() if name not in _NOT_IN_LINKS}
    cursor = request.query_params.get("cursor")
    links = [
        ("first", _url(resource, repeated.items())),
        ("current", _url(resource, [*repeated.items(), *([("cursor", cursor)] if cursor else [])])),
    ]
    if next_cursor is not None:
        links.append(("next", _url(resource, [*repeated.items(), ("cursor", next_cursor)])))
    return links


def _url(resource: str, params: Iterable[tuple[str, str]]) -> str:
    return f"./{resource}?{urlencode(list(params))}"


def _link(relation: str, url: str) -> str:
    return f'<{url}>; rel="{relation}"'


def _response(content: bytes, status: int, fmt: Format, server_id: str) -> Response:
    response = Response(content, status_code=status, headers={"X-Ably-Serverid": server_id})
    # Set here, so that no charset is appended: SDKs compare the type literally.
    response.headers["Content-Type"] = _TYPES[fmt]
    return response
