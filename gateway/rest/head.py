"""HEAD wherever GET is: the same answer without its body."""

from __future__ import annotations

import contextlib

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Answered(ClientDisconnect, OSError):
    """Ends a body without a reader, as the loss of a connection would."""


async def answer_head(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a HEAD with what `app` answers to the GET. A stream, which has no end, is left after its head."""
    answered = False

    async def receive_until_answered() -> Message:
        return {"type": "http.disconnect"} if answered else await receive()

    async def send_head(message: Message) -> None:
        nonlocal answered
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            answered = True
        elif message.get("more_body"):
            raise _Answered

    # Not a change of the scope itself: the server reads its method, too.
    with contextlib.suppress(ClientDisconnect):
        await app({**scope, "method": "GET"}, receive_until_answered, send_head)
