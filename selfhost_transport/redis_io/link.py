"""One socket to Redis: bytes out, replies in, in order. Nothing here waits, retries or knows a command.

Replies are parsed by hiredis. An awaited call per token through a general client costs five times as much
CPU as the rest of a token's way (docs/decisions/buffered-protocols.md).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import hiredis

from selfhost_transport.errors import StoreUnavailable
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.reasons import why_not_connected

Argument = str | bytes | int | float
OnReply = Callable[[Any], None]
OnReplies = Callable[[list[Any]], None]
OnLost = Callable[[Exception | None], None]


def pack(arguments: tuple[Argument, ...]) -> bytes:
    """A command as Redis reads it."""
    return cast(bytes, hiredis.pack_command(cast(Any, arguments)))


_READ_BYTES = 1 << 16
# Where much may arrive while a process is busy: the more is taken in each turn of the loop, the less waits in Redis.
_READ_BYTES_TOGETHER = 1 << 20


class Link(asyncio.BufferedProtocol):
    """A connected socket. `on_reply` gets every reply, errors as `hiredis.ReplyError` values.

    With `on_replies` all replies of one read are handed on in one call of that instead.
    """

    def __init__(self, on_reply: OnReply, on_lost: OnLost, on_replies: OnReplies | None = None) -> None:
        self._on_replies = on_replies
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)
        self._transport: asyncio.Transport | None = None
        self._opening: list[asyncio.Future[Any]] = []
        # Without one of ours asyncio allocates 256 KB for every read, which costs ten times the read itself.
        self._buffer = memoryview(bytearray(_READ_BYTES if on_replies is None else _READ_BYTES_TOGETHER))

    @classmethod
    async def open(
        cls,
        address: Address,
        on_reply: OnReply,
        on_lost: OnLost,
        timeout_s: float,
        on_replies: OnReplies | None = None,
    ) -> Link:
        """Connect, authenticate, choose the database. Raises StoreUnavailable."""
        link = cls(on_reply, on_lost, on_replies)
        try:
            async with asyncio.timeout(min(timeout_s, address.connect_timeout_s or timeout_s)):
                await link._connect(address)
                await link._greet(address)
        except (OSError, UnicodeError, TimeoutError, hiredis.HiredisError) as error:
            # A host name that IDNA cannot encode is a UnicodeError.
            link.abort()
            raise StoreUnavailable(why_not_connected(address, error)) from error
        except asyncio.CancelledError:
            link.abort()
            raise
        return link

    async def _connect(self, address: Address) -> None:
        loop = asyncio.get_running_loop()
        if address.path:
            await loop.create_unix_connection(lambda: self, address.path)
            return
        await loop.create_connection(lambda: self, address.host, address.port, ssl=address.tls)
        assert self._transport is not None
        if address.keepalive and (connected := self._transport.get_extra_info("socket")) is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    async def _greet(self, address: Address) -> None:
        commands: list[tuple[str | int, ...]] = []
        if address.password is not None:
            user = () if address.username is None else (address.username,)
            commands.append(("AUTH", *user, address.password))
        if address.database:
            commands.append(("SELECT", address.database))
        if address.client_name is not None:
            commands.append(("CLIENT", "SETNAME", address.client_name))
        commands.append(("ROLE",) if address.primary else ("PING",))
        self._opening = [asyncio.get_running_loop().create_future() for _ in commands]
        opening = list(self._opening)
        self.write([pack(command) for command in commands])
        replies = [await reply for reply in opening]
        # Without the right to ask for the role, the first write shows it: a replica refuses, and the connection moves.
        role = replies.pop()
        if address.primary and str(role).startswith("NOPERM"):
            role = [b"master"]
        for reply in (*replies, role):
            if isinstance(reply, hiredis.ReplyError):
                raise reply
        if address.primary and role[0] != b"master":
            raise ConnectionRefusedError("it is a replica")

    @property
    def keeps_alive(self) -> bool:
        """Whether the system looks whether an idle connection still stands."""
        used = None if self._transport is None else self._transport.get_extra_info("socket")
        return used is not None and bool(used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def write(self, packed: list[bytes]) -> None:
        """Send packed commands in one write."""
        if self._transport is not None:
            self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))

    def abort(self) -> None:
        """Drop the socket at once; `on_lost` is still called."""
        if self._transport is not None:
            self._transport.abort()

    def release(self) -> None:
        """The same, with no reply outstanding: another server is meant from now on."""
        self.abort()

    def close(self) -> None:
        """Close the socket after the buffered bytes have left."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        # Not asserted: other event loops (uvloop) have transports of their own kind.
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the event loop."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the event loop."""
        reader = self._reader
        # hiredis reads any buffer, whatever its annotations say.
        reader.feed(cast(bytes, self._buffer[:nbytes]))
        try:
            while self._opening and (reply := reader.gets()) is not False:
                opening = self._opening.pop(0)
                # The task that was connecting may have been cancelled.
                if not opening.done():
                    opening.set_result(reply)
            if self._on_replies is not None:
                self._collect(self._on_replies)
                return
            on_reply = self._on_reply
            while (reply := reader.gets()) is not False:
                on_reply(reply)
        except hiredis.ProtocolError:
            self.abort()

    def _collect(self, on_replies: OnReplies) -> None:
        gets, replies = self._reader.gets, []
        try:
            while (reply := gets()) is not False:
                replies.append(reply)
        finally:
            if replies:
                on_replies(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._transport = None
        for opening in self._opening:
            if not opening.done():
                opening.set_exception(ConnectionResetError("the connection was closed"))
        if not self._opening:
            self._on_lost(exc)


async def ask(address: Address, *command: Argument, within_s: float = 1.0) -> Any:
    """The reply to one command, over a connection of its own. Raises StoreUnavailable."""
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def lost(error: Exception | None) -> None:
        answered.cancel()

    link = await Link.open(address, answered.set_result, lost, within_s)
    try:
        link.write([pack(command)])
        await asyncio.wait([answered], timeout=within_s)
    finally:
        link.close()
    if not answered.done() or answered.cancelled():
        raise StoreUnavailable(f"{address} does not answer")
    if isinstance(answered.result(), hiredis.ReplyError):
        raise StoreUnavailable(why_not_connected(address, answered.result()))
    return answered.result()
