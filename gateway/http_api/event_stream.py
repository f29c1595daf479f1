"""A response that holds something until it ends, however it ends; and an application that lets it go on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

from fastapi import FastAPI
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_LATER: Final = "gateway.streams"


class EventStream(StreamingResponse):
    """Server-sent events. `release` is called once the response is over, also when the client left before it began.

    Thousands of silent streams are open at once. So each is sent by the task of its request, with one other beside it that
    waits until the client leaves, and from outside of the application's layers, if that is a `StreamingApplication`.
    """

    def __init__(
        self,
        content: AsyncIterator[bytes],
        release: Callable[[], Awaitable[None]],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head; the body too, unless the application does it later."""
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        later: list[EventStream] | None = scope.get(_LATER)
        if later is not None:
            later.append(self)
            await send(head)
            return
        try:
            await send(head)
        except BaseException:
            await self.release()
            raise
        await self.send_body(receive, send)

    async def release(self) -> None:
        """It is over."""
        await self._release()

    async def send_body(self, receive: Receive, send: Send) -> None:
        """Send all of the body, until the client leaves."""
        sending = asyncio.current_task()
        assert sending is not None
        leaving = asyncio.ensure_future(self.listen_for_disconnect(receive))
        over = False

        def left(_: object) -> None:
            # Called a turn of the loop later: what is released meanwhile must not be interrupted.
            if not over and not leaving.cancelled():
                sending.cancel()

        leaving.add_done_callback(left)
        try:
            async for chunk in self.body_iterator:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            # The client has left; anyone else's cancel goes on.
            if not leaving.done() or sending.uncancel():
                raise
        finally:
            over = True
            leaving.cancel()
            await self.release()


def sent_in_layers(scope: Scope) -> Scope:
    """The scope for a layer that answers with another body than the application: a stream stays inside of it."""
    return {name: value for name, value in scope.items() if name != _LATER}


class StreamingApplication(FastAPI):
    """Sends event streams itself once its layers, which have no more to do with them, have returned.

    Twenty coroutines wait in these layers otherwise, for as long as a stream is open, and five see each of its chunks.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life of the application."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        streams: list[EventStream] = []
        scope[_LATER] = streams
        try:
            await super().__call__(scope, receive, send)
        except BaseException:
            for stream in streams:
                await stream.release()
            raise
        for stream in streams:
            # What FastAPI kept there for the layers.
            for name in [name for name in scope if name.startswith("fastapi")]:
                del scope[name]
            await stream.send_body(receive, send)
