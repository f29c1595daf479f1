"""Event streams in and outside of an application's layers: who leaves is noticed, and what is held is let go, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Message

from gateway.http_api.event_stream import EventStream, StreamingApplication
from tests.processes import wait_until


class Exchange:
    """One request, as a server gives it to an application; `leave` closes the connection."""

    def __init__(self, application: type[FastAPI]) -> None:
        self.sent: list[Message] = []
        self.releases = 0
        self.layers_returned = False
        self.fails = False
        self._gone = asyncio.Event()
        self._more = asyncio.Event()
        self._app = application(openapi_url=None)
        self._app.add_api_route("/events", self._respond, response_model=None)
        inner = self._app.build_middleware_stack()

        async def layer(scope: Any, receive: Any, send: Any) -> None:
            await inner(scope, receive, send)
            self.layers_returned = True
            if self.fails:
                raise RuntimeError("a layer failed after the head")

        self._app.middleware_stack = layer

    async def _respond(self) -> EventStream:
        return EventStream(self._events(), self._release, {"x-kind": "events"})

    async def _events(self) -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await self._more.wait()
        yield b"data: 2\n\n"

    async def _release(self) -> None:
        self.releases += 1

    def run(self) -> asyncio.Task[None]:
        """Begin."""
        scope = {
            "type": "http", "asgi": {"spec_version": "2.3"}, "method": "GET", "path": "/events", "raw_path": b"/events",
            "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http", "server": ("x", 80), "root_path": "",
        }  # fmt: skip
        return asyncio.create_task(self._app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self._gone.set()

    def go_on(self) -> None:
        self._more.set()

    async def begun(self) -> None:
        await wait_until(lambda: len(self.sent) == 2, 5.0, "the first event")


@pytest.mark.parametrize("application", [FastAPI, StreamingApplication])
class TestInEitherApplication:
    async def test_a_whole_stream_is_sent_and_released(self, application: type[FastAPI]) -> None:
        exchange = Exchange(application)
        running = exchange.run()
        await exchange.begun()
        exchange.go_on()
        await asyncio.wait_for(running, 5.0)
        head, *bodies = exchange.sent
        assert head["status"] == 200 and (b"x-kind", b"events") in head["headers"]
        assert [body["body"] for body in bodies] == [b"data: 1\n\n", b"data: 2\n\n", b""]
        assert [body["more_body"] for body in bodies] == [True, True, False]
        assert exchange.releases == 1

    async def test_a_client_that_leaves_ends_a_silent_stream(self, application: type[FastAPI]) -> None:
        exchange = Exchange(application)
        running = exchange.run()
        await exchange.begun()
        assert exchange.releases == 0
        exchange.leave()
        await asyncio.wait_for(running, 5.0)
        assert exchange.releases == 1 and len(exchange.sent) == 2

    async def test_a_cancel_of_the_server_goes_on(self, application: type[FastAPI]) -> None:
        exchange = Exchange(application)
        running = exchange.run()
        await exchange.begun()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert exchange.releases == 1


async def test_the_layers_have_returned_while_a_stream_is_open() -> None:
    exchange = Exchange(StreamingApplication)
    running = exchange.run()
    await exchange.begun()
    assert exchange.layers_returned and not running.done()
    exchange.leave()
    await running


async def test_a_layer_that_fails_after_the_head_lets_the_stream_go() -> None:
    exchange = Exchange(StreamingApplication)
    exchange.fails = True
    with pytest.raises(RuntimeError):
        await exchange.run()
    assert exchange.releases == 1


async def test_what_is_let_go_after_the_client_has_left_is_not_interrupted() -> None:
    exchange = Exchange(StreamingApplication)
    released = asyncio.Event()

    async def release_slowly() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        released.set()

    exchange._release = release_slowly  # type: ignore[method-assign]
    running = exchange.run()
    await exchange.begun()
    # The client is seen to leave first, and the stream ends in the same turn of the loop.
    exchange.leave()
    exchange.go_on()
    await running
    assert released.is_set()
