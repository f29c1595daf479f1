"""A response that holds something until it ends, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class EventStream(StreamingResponse):
    """Server-sent events. `release` is called once the response is over, also when the client left before it began:
    then nothing of the iterator is run, its `finally` included.

    It is sent by the task of the request, with one other beside it that waits until the client leaves: thousands of
    silent streams are open at once, and each task group around them would be kilobytes.
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
        """Send it."""
        sending = asyncio.current_task()
        assert sending is not None
        leaving = asyncio.ensure_future(self.listen_for_disconnect(receive))

        def left(_: object) -> None:
            if not leaving.cancelled():
                sending.cancel()

        leaving.add_done_callback(left)
        try:
            await self.stream_response(send)
        except asyncio.CancelledError:
            # The client has left; anyone else's cancel goes on.
            if not leaving.done() or sending.uncancel():
                raise
        finally:
            leaving.remove_done_callback(left)
            leaving.cancel()
            await self._release()
