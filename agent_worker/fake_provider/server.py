"""The fake provider as a process: an HTTP server whose answers stream at the pace of a model."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import uvicorn

from agent_worker.fake_provider.behaviour import BEFORE, Behaviour, Fault, PlannedAnswer
from agent_worker.fake_provider.protocols import PROTOCOLS, ModelRequest, Protocol

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_BACKLOG = 2048
_AT_ONCE = 64
"""Tokens of one write, where the model has no pace of its own."""
_REMEMBERED = 100_000
_STREAM = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
_JSON = [(b"content-type", b"application/json")]


class FakeProvider:
    """An ASGI application. `key`: the API key that callers have to show; '' = any."""

    def __init__(self, behaviour: Behaviour, key: str = "") -> None:
        self._behaviour = behaviour
        self._key = key
        self._seen: Counter[str] = Counter()
        # What `GET /stats` answers.
        self._counts: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path = scope["path"]
        if scope["method"] == "GET" and path == "/stats":
            await _json(send, 200, dict(self._counts))
        elif scope["method"] == "GET" and path == "/v1/models":
            model = {"id": "fake", "object": "model", "created": 0, "owned_by": "fake-provider"}
            await _json(send, 200, {"object": "list", "data": [model]})
        elif scope["method"] == "POST" and path in PROTOCOLS:
            await self._answer(PROTOCOLS[path], scope, receive, send)
        else:
            await _json(
                send,
                404,
                {"error": {"message": f"there is no {scope['method']} {path}", "code": "not_found_error"}},
            )

    async def _answer(self, protocol: Protocol, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            return
        self._counts["requests"] += 1
        number = self._counts["requests"]
        if self._key and self._key not in _credentials(scope):
            error = {
                "message": "Incorrect API key provided",
                "type": "authentication_error",
                "code": "invalid_api_key",
            }
            await _json(send, 401, {"type": "error", "error": error})
            return
        try:
            asked = protocol.read(orjson.loads(body))
        except (ValueError, TypeError, AttributeError) as error:
            refused = {"message": str(error), "type": "invalid_request_error", "code": None}
            await _json(send, 400, {"type": "error", "error": refused})
            return
        answer = self._decide(asked, body)
        if answer.fault is not None:
            self._counts[f"fault_{answer.fault}"] += 1
        if answer.fault in BEFORE:
            assert answer.fault is not None
            await _json(send, protocol.status(answer.fault), protocol.error(answer.fault))
            return
        await self._speak(_Voice(protocol, asked, answer, number, send), receive)

    def _decide(self, asked: ModelRequest, body: bytes) -> PlannedAnswer:
        digest = hashlib.sha256(body).hexdigest()
        repeat = self._seen[digest]
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[digest] = repeat + 1
        return self._behaviour.answer(asked.text, digest, repeat, asked.most)

    async def _speak(self, voice: _Voice, receive: Receive) -> None:
        """Until the answer is whole, or its reader has hung up."""
        speaking = asyncio.create_task(voice.stream() if voice.asked.streamed else voice.whole())
        hanging_up = asyncio.create_task(_hung_up(receive))
        try:
            await asyncio.wait((speaking, hanging_up), return_when=asyncio.FIRST_COMPLETED)
            if not speaking.done():
                self._counts["hung_up"] += 1
        finally:
            for task in (speaking, hanging_up):
                task.cancel()
            await asyncio.gather(speaking, hanging_up, return_exceptions=True)
            self._counts["tokens"] += voice.said


class _Voice:
    """One answer on its way."""

    def __init__(
        self, protocol: Protocol, asked: ModelRequest, answer: PlannedAnswer, number: int, send: Send
    ) -> None:
        self._protocol = protocol
        self.asked = asked
        self._answer = answer
        self._number = number
        self._send = send
        self.said = 0

    async def whole(self) -> None:
        """The answer at once, when a model would have written it."""
        answer = self._answer
        seconds = answer.tokens / answer.rate if answer.rate else 0.0
        await asyncio.sleep(answer.first_token_s + seconds)
        if answer.fault is Fault.SILENT:
            await asyncio.get_running_loop().create_future()
        if answer.fault is not None:
            await _json(self._send, 500, self._protocol.error(Fault.FAILED))
            return
        self.said = answer.tokens
        text = _text(answer.tokens)
        whole = self._protocol.whole(self.asked, self._number, text, answer.tokens, cut=answer.cut)
        await _json(self._send, 200, whole)

    async def stream(self) -> None:
        """The answer as events, each token at its time."""
        answer, loop = self._answer, asyncio.get_running_loop()
        await self._send({"type": "http.response.start", "status": 200, "headers": _STREAM})
        first = loop.time() + answer.first_token_s
        await self._write(self._protocol.begin(self.asked, self._number))
        await self._tokens(first, answer.tokens if answer.fault is None else answer.at)
        match answer.fault:
            case Fault.SILENT:
                await loop.create_future()
            case Fault.DROPPED:
                return  # without the body's end: the server cuts the connection
            case Fault.STREAM_ERROR:
                await self._write(self._protocol.error_event(Fault.STREAM_ERROR), last=True)
            case _:
                text = _text(answer.tokens)
                ending = self._protocol.end(self.asked, self._number, text, answer.tokens, cut=answer.cut)
                await self._write(ending, last=True)

    async def _tokens(self, first: float, count: int) -> None:
        """Tokens are due at absolute times: however late the process is, the average rate holds."""
        loop, rate = asyncio.get_running_loop(), self._answer.rate
        token = self._protocol.token(self.asked, self._number)
        while self.said < count:
            await asyncio.sleep(max(0.0, first + (self.said / rate if rate else 0.0) - loop.time()))
            due = int((loop.time() - first) * rate) + 1 if rate else self.said + _AT_ONCE
            until = max(self.said + 1, min(count, due))
            await self._write(b"".join(token.of(f"{number} ") for number in range(self.said, until)))
            self.said = until

    async def _write(self, body: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})


def _text(tokens: int) -> str:
    return "".join(f"{number} " for number in range(tokens))


def _credentials(scope: Scope) -> str:
    shown: dict[bytes, bytes] = dict(scope["headers"])
    found = (shown.get(b"authorization", b"") + b" " + shown.get(b"x-api-key", b"")).decode("latin-1")
    return found.replace("Bearer ", " ")


async def _body(receive: Receive) -> bytes | None:
    """The body of a request; None when its sender has hung up."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _json(send: Send, status: int, body: dict[str, Any]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": _JSON})
    await send({"type": "http.response.body", "body": orjson.dumps(body)})


def server_of(provider: FakeProvider) -> uvicorn.Server:
    """The HTTP server of a provider, to be given its sockets."""
    # What it logs of streams that are cut is what was asked for.
    config = uvicorn.Config(
        provider, log_level="critical", access_log=False, lifespan="off", http="httptools", ws="none",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on; port 0 is any free one. Raises OSError for a port in use."""
    return socket.create_server((host, port), backlog=_BACKLOG)


def run_provider(behaviour: Behaviour, host: str, port: int, key: str) -> None:
    """Serve until SIGINT or SIGTERM. Prints `ready http://HOST:PORT`. Raises OSError for a port in use."""
    listening = listen(host, port)
    print(f"ready http://{host}:{listening.getsockname()[1]}", flush=True)
    asyncio.run(server_of(FakeProvider(behaviour, key)).serve(sockets=[listening]))
