"""msgpack and envelopes on the plain HTTP API, which speaks JSON: `request()` of the Ably SDKs asks for both by itself.

They send and expect msgpack by default, and those that run in a browser put the answer's status into the body.
"""

from __future__ import annotations

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Scope

from gateway.http_format import Reply, answer_format, respond
from selfhost_transport.wire.codec import Format, pack, unpack

_CONTENT_TYPE = b"content-type"
_MSGPACK = frozenset({"application/x-msgpack", "application/msgpack", "application/vnd.msgpack"})


async def with_json_body(request: Request) -> Request:
    """The request with a msgpack body as JSON. Raises BadRequest 40001 unless it is exactly one msgpack value."""
    # The whole type: `text/plain; msgpack` is one that a browser sends for any page, without asking.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _MSGPACK:
        return request
    raw = await request.body()
    body = pack(unpack(raw, Format.MSGPACK), Format.JSON) if raw else b""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(_scope_of_json(request.scope, len(body)), receive)


def _scope_of_json(scope: Scope, length: int) -> Scope:
    kept = [
        (name, value) for name, value in scope["headers"] if name not in (_CONTENT_TYPE, b"content-length")
    ]
    headers = [(_CONTENT_TYPE, b"application/json"), (b"content-length", str(length).encode())]
    return {**scope, "headers": [*kept, *headers]}


def in_format_asked_for(request: Request, response: Response, server_id: str) -> Response:
    """A JSON answer in the format and the envelope that the request asks for; others as they are."""
    enveloped = request.query_params.get("envelope") in ("json", "msgpack")
    is_json = response.headers.get("content-type", "").startswith("application/json")
    if not (enveloped or answer_format(request) is Format.MSGPACK) or not is_json:
        return response
    if isinstance(response, StreamingResponse):
        return response
    kept = {
        name: value
        for name, value in response.headers.items()
        if name not in ("content-type", "content-length")
    }
    body = orjson.loads(bytes(response.body))
    return respond(request, Reply(body, response.status_code, headers=kept), server_id)
