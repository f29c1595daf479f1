"""Calls to Redis that share pipelines: the calls of one loop iteration leave in one write.

An awaited round trip per token is ten times slower than it needs to be, so every command and script of a
process goes through one `RedisConnection`: while a batch is on its way the next one gathers. Awaiting a call
may be cancelled at any time; the command itself never is, so the protocol stream stays whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import redis.asyncio
from redis import exceptions

from selfhost_transport.errors import StoreFull, StoreUnavailable, StoreUnsuitable, TransportError

Argument = str | bytes | int | float

MAX_BATCH = 512
"""Calls in one write: bounds how long a call can wait behind others (P10)."""


class LuaScript(Protocol):
    """What is needed of a script: its digest and its source."""

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def source(self) -> str: ...  # noqa: D102


@dataclass(slots=True)
class _Call:
    arguments: tuple[Argument, ...]
    script: LuaScript | None
    reply: asyncio.Future[Any]
    # Monotonic time until which a lost connection is answered by trying again; 0: never.
    retry_until: float


class RedisConnection:
    """A batching connection. `call` and `command` may be used from any number of tasks.

    Errors: StoreUnavailable when Redis cannot be reached or the connection was lost before the reply,
    StoreFull at `maxmemory`, StoreUnsuitable for anything the server does not know how to do.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        self._redis = redis.asyncio.Redis.from_url(
            url,
            decode_responses=False,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=None,
            max_connections=4,
            protocol=2,
        )
        self._waiting: deque[_Call] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def call(
        self,
        script: LuaScript,
        keys: Sequence[Argument],
        arguments: Sequence[Argument],
        *,
        retry_s: float = 0.0,
    ) -> asyncio.Future[Any]:
        """Run a script. With `retry_s`, a lost connection is retried: only for calls that may run twice."""
        return self._enqueue(("EVALSHA", script.digest, len(keys), *keys, *arguments), script, retry_s)

    def command(self, *arguments: Argument, retry_s: float = 0.0) -> asyncio.Future[Any]:
        """Run one command; the reply is as Redis sends it (bytes, int, list, None)."""
        return self._enqueue(arguments, None, retry_s)

    async def load(self, scripts: Sequence[LuaScript]) -> None:
        """Put scripts into the server's cache."""
        await asyncio.gather(*(self.command("SCRIPT", "LOAD", script.source) for script in scripts))

    async def info(self) -> dict[str, Any]:
        """The server's INFO, parsed."""
        try:
            parsed: dict[str, Any] = await self._redis.info()
        except (exceptions.RedisError, OSError) as error:
            raise as_transport_error(error) from error
        return parsed

    async def close(self) -> None:
        """Finish what is on its way, refuse what waits, and disconnect."""
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
            self._writer = None
        closed = StoreUnavailable("the connection to Redis was closed")
        while self._waiting:
            _fail(self._waiting.popleft(), closed)
        await self._redis.aclose()

    def _enqueue(
        self, arguments: tuple[Argument, ...], script: LuaScript | None, retry_s: float
    ) -> asyncio.Future[Any]:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        until = time.monotonic() + retry_s if retry_s else 0.0
        self._waiting.append(_Call(arguments, script, reply, until))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="redis-writer")
        self._wake.set()
        return reply

    async def _write(self) -> None:
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            try:
                await asyncio.shield(self._send(batch))
            except asyncio.CancelledError:
                for call in batch:
                    _fail(call, StoreUnavailable("the connection to Redis was closed"))
                raise

    async def _send(self, batch: list[_Call]) -> None:
        try:
            replies = await self._execute(batch)
            missing = [call for call, reply in zip(batch, replies, strict=True) if _is_missing(reply)]
            if missing:
                # All scripts are loaded at start, so this is a server that restarted: it misses all of them,
                # and the calls keep their order.
                await self._load(missing)
                again = await self._execute(missing)
                for call, reply in zip(missing, again, strict=True):
                    _settle(call, reply)
            for call, reply in zip(batch, replies, strict=True):
                if not _is_missing(reply):
                    _settle(call, reply)
        except (exceptions.RedisError, OSError) as error:
            await self._retry_or_fail(batch, error)

    async def _execute(self, batch: list[_Call]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.response_callbacks = {}  # replies as Redis sends them
        for call in batch:
            pipeline.execute_command(*call.arguments)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    async def _load(self, calls: list[_Call]) -> None:
        for source in {call.script.source for call in calls if call.script is not None}:
            await self._redis.script_load(source)

    async def _retry_or_fail(self, batch: list[_Call], error: Exception) -> None:
        now = time.monotonic()
        pending = [call for call in batch if not call.reply.done()]
        again = [call for call in pending if call.retry_until > now]
        lost = as_transport_error(error)
        for call in pending:
            if call.retry_until <= now:
                _fail(call, lost)
        if again:
            self._waiting.extendleft(reversed(again))
            await asyncio.sleep(0.05)  # paces reconnecting while the server is away


def _is_missing(reply: Any) -> bool:
    return isinstance(reply, exceptions.NoScriptError)


def _settle(call: _Call, reply: Any) -> None:
    if call.reply.done():
        return
    if isinstance(reply, Exception):
        call.reply.set_exception(as_transport_error(reply))
    else:
        call.reply.set_result(reply)


def _fail(call: _Call, error: TransportError) -> None:
    if not call.reply.done():
        call.reply.set_exception(error)


def as_transport_error(error: Exception) -> TransportError:
    """What a failure of Redis means to the caller."""
    text = str(error)
    if isinstance(error, exceptions.OutOfMemoryError) or "OOM" in text:
        return StoreFull(
            "Redis is full (maxmemory reached): nothing was written. Free memory, raise maxmemory, or shorten "
            "the retention, then repeat the request"
        )
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        return StoreUnsuitable(
            f"Redis refuses these credentials: {text}. Check the user's ACL (docs/deployment.md)"
        )
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | OSError):
        return StoreUnavailable(f"Redis cannot be reached: {text or type(error).__name__}. Try again shortly")
    return StoreUnsuitable(f"Redis refused an operation: {text}")
