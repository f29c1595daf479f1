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
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import hiredis

from selfhost_transport.errors import InvalidArgument, StoreUnavailable, TransportError
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.calls import (
    ALONE,
    NO_CALLER,
    Combination,
    PendingCall,
    ReplyCallback,
    ReplyReceiver,
)
from selfhost_transport.redis_io.combined_calls import pack_calls, replies_of
from selfhost_transport.redis_io.databases import LuaScript
from selfhost_transport.redis_io.link import Argument, Link, OnLost, OnReply, pack
from selfhost_transport.redis_io.refusals import RedisFailure, Refusal, as_transport_error, refusal_of

logger = logging.getLogger(__name__)

FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 1.0
LONGEST_PAUSE_S = 0.25
"""Between two attempts at what a server refuses for the moment: reads of the same connection wait for as long."""
_TICK_S = 0.25
_LONGEST_WAIT_S = 1.0
"""For replicas to have a write; meanwhile the connection carries nothing else."""


class AddressResolver(Protocol):
    """Asked before every attempt to connect, so that a fail-over is followed."""

    @property
    def moves(self) -> bool:
        """Whether another server may be named next time."""

    def refused(self, text: str, /) -> None:
        """A server refused a call for the moment; its reply may name another one."""

    async def locate(self) -> Address:
        """Where the primary is now. Raises StoreUnavailable."""


class RedisSocket(Protocol):
    """A connection, or a share of one."""

    def write(self, packed: list[bytes], /) -> None:
        """Send packed commands."""

    def abort(self) -> None:
        """The server is silent: drop the socket; `on_lost` is called."""

    def release(self) -> None:
        """Leave the server, with no reply outstanding; `on_lost` is called."""

    def close(self) -> None:
        """Leave the server for good."""


class Sockets(Protocol):
    """Where a pipeline gets its connection from."""

    @property
    def shared(self) -> bool:
        """Whether others use the same ones: then they are given the scripts, and their loss is logged, there."""

    async def open(
        self, address: Address, on_reply: OnReply, on_lost: OnLost, timeout_s: float, /
    ) -> RedisSocket:
        """Connect. Raises StoreUnavailable."""

    @property
    def flush_soon(self) -> Callable[[Callable[[], None]], None] | None:
        """Has a flush called in the next iteration of the loop, with those of others; None: the loop calls it."""

    def report(self, event: str, address: object, error: object, /) -> None:
        """Log an event."""


class OwnSocket:
    """A connection of one's own."""

    shared = False
    flush_soon = None

    async def open(
        self, address: Address, on_reply: OnReply, on_lost: OnLost, timeout_s: float
    ) -> RedisSocket:
        """Connect. Raises StoreUnavailable."""
        return await Link.open(address, on_reply, on_lost, timeout_s)

    def report(self, event: str, address: object, error: object) -> None:
        """Log an event."""
        logger.warning("%s address=%s error=%s", event, address, error)


class Pipeline:
    """A pipelining, reconnecting connection to one server: to wherever it is, asked before each attempt."""

    def __init__(
        self,
        where: AddressResolver,
        timeout_s: float,
        scripts: dict[str, LuaScript] | None = None,
        sockets: Sockets | None = None,
        replicas: int = 0,
    ) -> None:
        self._where = where
        # How many replicas have to have a write before its reply is passed on (P11), and writes that wait for that.
        self._replicas = replicas
        self._unconfirmed: list[tuple[PendingCall, Any]] = []
        self._sockets: Sockets = sockets or OwnSocket()
        # By digest: those that a server gets before anything else. One that has not got a script sends the call back,
        # and a call of another script behind it would overtake it.
        self._scripts = {} if scripts is None else scripts
        self._timeout_s = timeout_s
        self._link: RedisSocket | None = None
        # The one that it is connected on.
        self._loop: asyncio.AbstractEventLoop | None = None
        # Calls not sent yet, and calls whose reply is outstanding, both in order.
        self._waiting: deque[PendingCall] = deque()
        self._sent: deque[PendingCall] = deque()
        # Calls that the server refused for now, in order: they come before those that wait. Then the pause that follows.
        self._held: list[PendingCall] = []
        # Scripts that some of those need and the server does not have.
        self._missing: dict[str, LuaScript] = {}
        self._leave = False
        self._pause_s = 0.0
        self._repeating: asyncio.TimerHandle | None = None
        self._flush_scheduled = False
        self._connecting: asyncio.Task[None] | None = None
        # Why there is no connection.
        self._trouble: TransportError | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._replies = 0
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether a socket is connected."""
        return self._link is not None

    @property
    def in_flight(self) -> int:
        """Calls without a reply yet."""
        return len(self._waiting) + len(self._sent) + len(self._held) + len(self._unconfirmed)

    async def close(self) -> None:
        """Refuse what has no reply yet, and disconnect."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        for timer in (self._tick, self._repeating):
            if timer is not None:
                timer.cancel()
        if self._link is not None:
            self._link.close()
            self._link = None
        error = RedisFailure("the connection to Redis was closed by this process")
        for call in (*self._sent, *self._held, *self._waiting, *self._take_unconfirmed()):
            call.fail(error)
        for calls in (self._held, self._sent, self._waiting):
            calls.clear()

    def learn(self, scripts: Sequence[LuaScript]) -> None:
        """Scripts that every server is to have before it is used."""
        self._scripts.update({script.digest: script for script in scripts})

    def start(
        self, arguments: tuple[Argument, ...], script: LuaScript | None, retry_s: float
    ) -> asyncio.Future[Any]:
        """Send a command soon; with `retry_s`, again after a lost connection, until so many seconds have passed.

        Raises InvalidArgument in another event loop than the connection's, which runs: no reply would arrive there.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop and self._loop is not None and self._loop.is_running():
            raise InvalidArgument("a connection to Redis was used from another event loop than its own")
        reply: asyncio.Future[Any] = loop.create_future()
        self.send(script, None, ALONE, pack(arguments), reply, retry_s)
        return reply

    def send(
        self,
        script: LuaScript | None,
        misplaced: bytes | None,
        combination: Combination,
        packed: bytes,
        answer: ReplyReceiver,
        retry_s: float,
    ) -> None:
        """The same with a packed command, for a callback.

        `misplaced`: the reply to a call that came before one that it depends on. Where the server has refused some
        call for the moment, such a call is repeated with it, in the order of the calls.
        `combination`: how it can be sent with others; then `packed` has its arguments only.
        """
        until = time.monotonic() + (retry_s or self._timeout_s)
        call = PendingCall(packed, script, answer, until, retry_s > 0, misplaced, combination)
        if self._closed:
            call.fail(RedisFailure("the connection to Redis was closed by this process"))
            return
        self._waiting.append(call)
        if self._flush_scheduled and self._tick is not None:
            return
        # Only for the first of those that leave together: in Python 3.11 it is a system call.
        loop = asyncio.get_running_loop()
        if self._tick is None:
            self._look_later(loop, time.monotonic(), self._replies)
        self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._link is None:
            if self._connecting is None or self._connecting.done():
                self._connecting = loop.create_task(self._connect(), name="redis-connect")
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            if (flush_soon := self._sockets.flush_soon) is None:
                loop.call_soon(self._flush)
            else:
                flush_soon(self._flush)

    def leave(self) -> None:
        """Another server is the primary: connect again, once the replies that are outstanding have come."""
        if self._link is None:
            return
        self._leave = True
        if not self._sent:
            self._link.release()

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._link is None or not self._waiting or self._held or self._leave:
            return
        calls, self._waiting = self._waiting, deque()
        if self._replicas and any(call.writes for call in calls):
            calls.append(self._confirmation())
        self._sent.extend(calls)
        self._link.write(pack_calls(calls))

    def _on_reply(self, reply: Any) -> None:
        self._replies += 1
        call = self._sent.popleft()
        if call.combined:
            self._on_combined(call, reply)
        else:
            self._take(call, reply, call.script)
        if not self._sent:
            self._all_answered()

    def _on_combined(self, first: PendingCall, reply: Any) -> None:
        """The reply to calls that were sent as one."""
        self._sent.appendleft(first)
        next_call = self._sent.popleft
        if isinstance(reply, hiredis.ReplyError):
            # None of them was begun.
            several = first.combination.several
            for _ in range(first.combined):
                self._take(next_call(), reply, several)
            return
        plain = type(reply) is bytes and not (self._held or self._replicas)
        for one in replies_of(reply):
            call = next_call()
            if plain and type(answer := call.reply) is ReplyCallback:
                # The reply to every append.
                answer.notify(one, None)
            else:
                self._take(call, one, call.script)

    def _take(self, call: PendingCall, reply: Any, script: LuaScript | None) -> None:
        """A reply to one call, which was made of this script."""
        answer = call.reply
        if answer.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            self._refused(call, reply, script)
        elif self._held and call.misplaced is not None and reply == call.misplaced:
            self._held.append(call)
        elif self._replicas and call.writes:
            self._unconfirmed.append((call, reply))
        else:
            answer.set_result(reply)

    def _confirmation(self) -> PendingCall:
        """Waits for the replicas to have all that was written before it; one for each batch of calls."""
        # Less than a call has, so that one that may be repeated is.
        wait_ms = round(min(self._timeout_s * 0.4, _LONGEST_WAIT_S) * 1000)
        return PendingCall(
            pack(("WAIT", self._replicas, wait_ms)), None, ReplyCallback(self._confirm), math.inf, False
        )

    def _confirm(self, confirmed: Any, error: BaseException | None) -> None:
        calls, self._unconfirmed = self._unconfirmed, []
        if error is None and confirmed >= self._replicas:
            for call, reply in calls:
                if not call.reply.done():
                    call.reply.set_result(reply)
            return
        why = f"{confirmed} of {self._replicas} replicas have it" if error is None else str(error)
        unsafe = RedisFailure(f"Redis has carried the operation out, but {why}: a fail-over may lose it")
        for call, _ in calls:
            call.refused = unsafe
            if call.again:
                # Redis recognises that it was done, and is asked for the replicas again.
                call.go_alone()
                self._held.append(call)
            else:
                call.fail(unsafe)

    def _take_unconfirmed(self) -> list[PendingCall]:
        calls, self._unconfirmed = self._unconfirmed, []
        return [call for call, _ in calls]

    def _refused(self, call: PendingCall, error: hiredis.ReplyError, script: LuaScript | None) -> None:
        text = str(error)
        if script is not None and text.startswith("NOSCRIPT"):
            # Its first use, or the scripts were flushed. Further calls of it come back in the same way, and none may
            # be made before them.
            self._scripts[script.digest] = self._missing[script.digest] = script
            self._held.append(call)
            return
        refusal = refusal_of(text)
        call.refused = as_transport_error(text)
        if refusal is Refusal.FINAL or (refusal is Refusal.FULL and not call.again):
            call.reply.set_exception(call.refused)
            return
        if not self._held and not self._pause_s:
            self._sockets.report("redis.refuses", self._where, text)
        self._where.refused(text)
        # It did not happen, so the call is made again, here or elsewhere, until its time is over.
        self._held.append(call)
        if refusal is not Refusal.MOVING:
            self._leave = self._leave or refusal is Refusal.ELSEWHERE or self._where.moves

    def _all_answered(self) -> None:
        """Only now are held calls made again: what was sent behind them has to come back first, to keep the order."""
        if self._leave:
            if self._link is not None:
                self._link.release()
        elif not self._held:
            self._pause_s = 0.0
        elif self._link is None:
            return
        elif self._missing and not self._pause_s:
            self._pause_s = FIRST_DELAY_S  # for a server that still does not have them then
            self._repeat()
        elif self._repeating is None:
            self._pause_s = min(max(FIRST_DELAY_S, self._pause_s * 2), LONGEST_PAUSE_S)
            self._repeating = asyncio.get_running_loop().call_later(self._pause_s, self._repeat)

    def _repeat(self) -> None:
        """Send what was held, and what has come since, to the same server."""
        self._repeating = None
        self._waiting.extendleft(reversed(self._held))
        self._waiting.extendleft(map(_loading, self._missing.values()))
        self._held.clear()
        self._missing.clear()
        self._flush()

    def _on_lost(self, error: Exception | None) -> None:
        self._link = None
        if self._repeating is not None:
            self._repeating.cancel()
            self._repeating = None
        if not self._closed and not self._sockets.shared:
            self._sockets.report("redis.connection_lost", self._where, error)
        lost = RedisFailure(
            "the connection to Redis was lost before the reply: it is not known whether the operation happened"
        )
        unanswered = (*self._take_unconfirmed(), *self._sent)
        again = [*self._held, *(call for call in unanswered if call.again)]
        for call in unanswered:
            if not call.again:
                call.fail(lost)
            else:
                call.go_alone()
        self._sent.clear()
        self._waiting.extendleft(reversed(again))
        self._pause_s = min(max(FIRST_DELAY_S, self._pause_s * 2), LONGEST_DELAY_S) if self._held else 0.0
        self._held.clear()
        self._missing.clear()
        self._leave = False
        if not self._closed:
            self._schedule(asyncio.get_running_loop())

    async def _connect(self) -> None:
        self._loop = asyncio.get_running_loop()
        delay = FIRST_DELAY_S
        if self._pause_s:
            await asyncio.sleep(self._pause_s)  # paces reconnecting while no primary is elected
        while self._link is None:
            try:
                address = await self._where.locate()
                self._link = await self._sockets.open(address, self._on_reply, self._on_lost, self._timeout_s)
            except StoreUnavailable as error:
                self._trouble = RedisFailure(str(error))
                if not self._waiting:
                    return
                await asyncio.sleep(delay)  # paces reconnecting while the server is away
                delay = min(delay * 2, LONGEST_DELAY_S)
        self._trouble = None
        if not self._sockets.shared:
            self._waiting.extendleft(map(_loading, self._scripts.values()))
        self._flush()

    def _look_later(self, loop: asyncio.AbstractEventLoop, heard_at: float, replies: int) -> None:
        pause = min(_TICK_S, self._timeout_s / 4)
        self._tick = loop.call_later(pause, self._look, heard_at, replies)

    def _look(self, heard_at: float, replies: int) -> None:
        """While there are calls: end those whose time is over, and notice a server that no longer answers."""
        self._tick = None
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        self._expire(now)
        if not self.in_flight:
            return
        if self._replies != replies or not self._sent:
            heard_at = now
        elif now - heard_at >= self._timeout_s and self._link is not None:
            # It keeps its sockets open.
            self._link.abort()
            heard_at = now
        self._look_later(loop, heard_at, self._replies)

    def _expire(self, now: float) -> None:
        silent = RedisFailure(
            f"Redis at {self._where} did not answer in time: it is not known whether the operation happened"
        )
        for call in (*self._sent, *(call for call, _ in self._unconfirmed)):
            if call.until <= now and not call.reply.done():
                call.reply.set_exception(silent)
                call.reply = NO_CALLER
        unsent = self._trouble or RedisFailure(f"Redis at {self._where} cannot be reached in time")
        for calls in (self._held, self._waiting):
            expired = [call for call in calls if call.until <= now]
            for call in expired:
                call.fail(call.refused or unsent)
            if expired:
                still = [call for call in calls if call.until > now]
                calls.clear()
                calls.extend(still)


def _loading(script: LuaScript) -> PendingCall:
    """Not repeated after a lost connection: the next one begins with it anyway."""
    return PendingCall(pack(("SCRIPT", "LOAD", script.source)), None, _ignored(), math.inf, False)


def _ignored() -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.exception())
    return future
