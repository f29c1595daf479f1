"""Limits the size of a request's body, for every caller."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Message

from selfhost_transport.errors import MessageTooLarge


def bounded(request: Request, limit: int, advice: str = "", status_code: int | None = None) -> Request:
    """The request with a body of at most `limit` bytes; reading further raises MessageTooLarge."""
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise MessageTooLarge(f"the request body exceeds {limit} bytes{advice}", status_code=status_code)
        return message

    return Request(request.scope, receive)
