"""Calls to one server that share pipelines: the calls of one loop iteration leave in one write.

An awaited round trip per token is ten times slower than it needs to be, so every command and script of a
process that is for the same server goes through one `Pipeline`. Awaiting a call may be cancelled at any time; the
command itself never is, so the protocol stream stays whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import hiredis

from selfhost_transport.errors import StoreFull, StoreUnavailable, StoreUnsuitable, TransportError
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.link import Argument, Link, pack

logger = logging.getLogger(__name__)

FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 1.0
_ELSEWHERE = ("LOADING", "MASTERDOWN", "MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN")


class LuaScript(Protocol):
    """What is needed of a script: its digest and its source."""

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def source(self) -> str: ...  # noqa: D102


class Answer(Protocol):
    """Who is told of a reply: a future, or somebody who is told again and again (Told)."""

    def done(self) -> bool: ...  # noqa: D102

    def set_result(self, result: Any, /) -> None: ...  # noqa: D102

    def set_exception(self, exception: BaseException, /) -> None: ...  # noqa: D102


class Told:
    """Tells a function of every reply, or of what happened instead of it, in the reading callback.

    The function must be quick and never raise. A future for each call would cost as much as the call.
    """

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[Any, BaseException | None], None]) -> None:
        self._tell = tell

    def done(self) -> bool:
        """There is always another reply."""
        return False

    def set_result(self, result: Any, /) -> None:
        """A reply came."""
        self._tell(result, None)

    def set_exception(self, exception: BaseException, /) -> None:
        """None came, or it was an error."""
        self._tell(None, exception)


class _Call:
    """One command on its way. `until`: loop time at which waiting for a connection, or trying again, ends."""

    __slots__ = ("again", "packed", "reply", "script", "until")

    def __init__(
        self, packed: bytes, script: LuaScript | None, reply: Answer, until: float, again: bool
    ) -> None:
        self.packed = packed
        self.script = script
        self.reply = reply
        self.until = until
        # Whether it may be sent a second time after a connection was lost with the reply outstanding.
        self.again = again


class Whereabouts(Protocol):
    """Asked before every attempt to connect, so that a fail-over is followed."""

    async def locate(self) -> Address:
        """Where the primary is now. Raises StoreUnavailable."""


class Pipeline:
    """A pipelining, reconnecting connection to one server: to wherever it is, asked before each attempt."""

    def __init__(
        self, where: Whereabouts, timeout_s: float, scripts: dict[str, LuaScript] | None = None
    ) -> None:
        self._where = where
        # By digest: those that a server gets before anything else. One that has not got a script sends the call back,
        # and a call of another script behind it would overtake it.
        self._scripts = {} if scripts is None else scripts
        self._timeout_s = timeout_s
        self._link: Link | None = None
        # Calls not sent yet, and calls whose reply is outstanding, both in order.
        self._waiting: deque[_Call] = deque()
        self._sent: deque[_Call] = deque()
        # Calls that this server refused for what it is, and how long to wait before the next server.
        self._held: list[_Call] = []
        self._pause_s = 0.0
        self._flush_scheduled = False
        self._connecting: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._replies = 0
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether a socket is up at the moment."""
        return self._link is not None

    @property
    def in_flight(self) -> int:
        """Calls without a reply yet."""
        return len(self._waiting) + len(self._sent) + len(self._held)

    async def close(self) -> None:
        """Refuse what has no reply yet, and disconnect."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self._watch is not None:
            self._watch.cancel()
        if self._link is not None:
            self._link.close()
            self._link = None
        error = StoreUnavailable("the connection to Redis was closed by this process")
        for call in (*self._held, *self._sent, *self._waiting):
            _fail(call, error)
        for calls in (self._held, self._sent, self._waiting):
            calls.clear()

    def learn(self, scripts: Sequence[LuaScript]) -> None:
        """Scripts that every server is to have before it is used."""
        self._scripts.update({script.digest: script for script in scripts})

    def start(
        self, arguments: tuple[Argument, ...], script: LuaScript | None, retry_s: float
    ) -> asyncio.Future[Any]:
        """Send a command soon; with `retry_s`, again after a lost connection, until so many seconds have passed."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.send(pack(arguments), script, reply, retry_s)
        return reply

    def send(self, packed: bytes, script: LuaScript | None, answer: Answer, retry_s: float) -> None:
        """The same with a packed command, for whoever wants to be told."""
        loop = asyncio.get_running_loop()
        call = _Call(packed, script, answer, loop.time() + (retry_s or self._timeout_s), retry_s > 0)
        if self._closed:
            _fail(call, StoreUnavailable("the connection to Redis was closed by this process"))
            return
        self._waiting.append(call)
        self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._link is None:
            if self._connecting is None or self._connecting.done():
                self._connecting = loop.create_task(self._connect(), name="redis-connect")
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._link is None or not self._waiting or self._held:
            return
        calls, self._waiting = self._waiting, deque()
        self._sent.extend(calls)
        self._link.write([call.packed for call in calls])
        if self._watch is None:
            self._watch_replies(-1)

    def _on_reply(self, reply: Any) -> None:
        self._replies += 1
        call = self._sent.popleft()
        if call.reply.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            self._refused(call, reply)
        else:
            call.reply.set_result(reply)

    def _refused(self, call: _Call, error: hiredis.ReplyError) -> None:
        text = str(error)
        if call.script is not None and text.startswith("NOSCRIPT"):
            # Its first use, or somebody has flushed the scripts. Further calls of it come back the same way.
            self._scripts[call.script.digest] = call.script
            self._waiting.extend((_loading(call.script), call))
            self._schedule(asyncio.get_running_loop())
        elif _is_elsewhere(text) and call.until > asyncio.get_running_loop().time():
            self._move_on(call)
        else:
            call.reply.set_exception(as_transport_error(text))

    def _move_on(self, call: _Call) -> None:
        """The server is starting, is no primary any more, or has given the slot away: the call is made again elsewhere.

        The socket is dropped when all that is on its way has come back, so that the order stays.
        """
        self._held.append(call)
        if not self._sent and self._link is not None:
            self._link.abort()

    def _on_lost(self, error: Exception | None) -> None:
        self._link = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if not self._closed:
            logger.warning("redis.connection_lost address=%s error=%s", self._where, error)
        lost = StoreUnavailable(
            "the connection to Redis was lost before the reply: it is not known whether the operation happened"
        )
        again = [*self._held, *(call for call in self._sent if call.again)]
        for call in self._sent:
            if not call.again:
                _fail(call, lost)
        self._sent.clear()
        self._waiting.extendleft(reversed(again))
        self._pause_s = min(max(FIRST_DELAY_S, self._pause_s * 2), LONGEST_DELAY_S) if self._held else 0.0
        self._held.clear()
        if not self._closed:
            self._schedule(asyncio.get_running_loop())

    async def _connect(self) -> None:
        delay = FIRST_DELAY_S
        loop = asyncio.get_running_loop()
        if self._pause_s:
            await asyncio.sleep(self._pause_s)  # paces reconnecting while no primary is elected
        while self._link is None:
            try:
                address = await self._where.locate()
                self._link = await Link.open(address, self._on_reply, self._on_lost, self._timeout_s)
            except StoreUnavailable as error:
                self._expire(loop.time(), error)
                if not self._waiting:
                    return
                await asyncio.sleep(delay)  # paces reconnecting while the server is away
                delay = min(delay * 2, LONGEST_DELAY_S)
        self._waiting.extendleft(map(_loading, self._scripts.values()))
        self._flush()

    def _expire(self, now: float, error: TransportError) -> None:
        still: deque[_Call] = deque()
        for call in self._waiting:
            if call.until > now:
                still.append(call)
            else:
                _fail(call, error)
        self._waiting = still

    def _watch_replies(self, replies: int) -> None:
        """A server that stopped answering keeps its sockets open: without any reply for the timeout, drop it."""
        if self._sent and self._replies == replies and self._link is not None:
            self._watch = None
            self._link.abort()
            return
        if not self._sent:
            self._watch = None
            return
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(self._timeout_s, self._watch_replies, self._replies)


def _loading(script: LuaScript) -> _Call:
    """Not repeated after a lost connection: the next one begins with it anyway."""
    return _Call(pack(("SCRIPT", "LOAD", script.source)), None, _ignored(), math.inf, False)


def _ignored() -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.exception())
    return future


def _fail(call: _Call, error: TransportError) -> None:
    if not call.reply.done():
        call.reply.set_exception(error)


def _is_elsewhere(text: str) -> bool:
    """Whether a server says that it did nothing, because it cannot serve this call now, or another server does.

    Redis 6 puts READONLY into the error of a script.
    """
    return text.startswith(_ELSEWHERE) or "READONLY" in text


def as_transport_error(text: str) -> TransportError:
    """What an error reply of Redis means to the caller."""
    if "OOM" in text:
        return StoreFull(
            "Redis is full (maxmemory reached): nothing was written. Free memory, raise maxmemory, or shorten "
            "the retention, then repeat the request"
        )
    if _is_elsewhere(text) or text.startswith(("BUSY", "MISCONF")):
        return StoreUnavailable(f"Redis does not accept writes at the moment: {text}. Try again shortly")
    if text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")) or "NOPERM" in text:
        return StoreUnsuitable(
            f"Redis refuses these credentials: {text}. Check the user's ACL (docs/deployment.md)"
        )
    return StoreUnsuitable(f"Redis refused an operation: {text}")
