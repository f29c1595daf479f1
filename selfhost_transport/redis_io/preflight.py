"""Is this the right way into the right Redis? Asked once when a process starts, answered within two seconds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from typing import Any, Final

import hiredis

from selfhost_transport.errors import StoreUnavailable, StoreUnsuitable
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.address_resolver import Fixed, address_resolver
from selfhost_transport.redis_io.cluster import ClusterNodes
from selfhost_transport.redis_io.link import Link, pack
from selfhost_transport.redis_io.reasons import SPEAKS_PLAIN, SPEAKS_TLS, why_not_connected

_CONNECT_S: Final = 1.0
_PROBE_S: Final = 0.4
_HELLO: Final = b"PING\r\n"


async def check_way_in(url: str) -> None:
    """Connect once, as the URL says, and check the server.

    Raises InvalidArgument for a URL that cannot be read, StoreUnavailable where nothing usable answers, StoreUnsuitable
    where something else does than the URL says. A server that is loading, or busy, is right: calls wait for it.
    """
    where = address_resolver(url)
    if isinstance(where, ClusterNodes):
        await _check_names(where.seeds)
        await where.read()
        return
    if isinstance(where, Fixed):
        await _check_names((where.address,))
        address = where.address
    else:
        await _check_names(where.sentinels)
        address = await where.locate()
    await _check_server(address)


async def _check_server(address: Address) -> None:
    replies: list[Any] = []
    arrived = asyncio.Event()

    def on_reply(reply: Any) -> None:
        replies.append(reply)
        if len(replies) == len(asked):
            arrived.set()

    asked = [("ROLE",), ("INFO", "cluster")]
    try:
        link = await Link.open(address, on_reply, lambda _: arrived.set(), _CONNECT_S)
    except StoreUnavailable as error:
        if _is_waiting(error):
            return
        raise await _explained(address, error) from None
    try:
        link.write([pack(command) for command in asked])
        with contextlib.suppress(TimeoutError):  # it answered before; calls have a time of their own
            await asyncio.wait_for(arrived.wait(), _PROBE_S)
    finally:
        link.close()
    _check_role(address, replies[0] if replies else None)
    if len(replies) == len(asked) and isinstance(replies[1], bytes) and b"cluster_enabled:1" in replies[1]:
        raise StoreUnsuitable(
            f"Redis at {address} is a node of a Cluster: redis+cluster://HOST:PORT instead of redis:// in the URL"
        )


def _is_waiting(error: StoreUnavailable) -> bool:
    """Whether a server is there that does not answer yet."""
    reply = error.__cause__
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(("LOADING", "BUSY"))


def _check_role(address: Address, role: Any) -> None:
    """Without the right to ask for the role, the first write shows it."""
    kind = role[0] if isinstance(role, list) else None
    if kind == b"sentinel":
        raise StoreUnsuitable(
            f"{address.host}:{address.port} is a Sentinel: redis+sentinel://HOST:PORT/SERVICE instead of redis:// in the URL"
        )
    if kind == b"slave":
        raise StoreUnavailable(
            f"Redis at {address} is a replica of {role[1].decode()}:{role[2]}, which cannot be written to: give the "
            "address of the primary, or of the Sentinels"
        )


async def _explained(address: Address, error: StoreUnavailable) -> StoreUnavailable:
    """The error; where TLS was expected on one side only, one that says so."""
    is_network = isinstance(error.__cause__, OSError | hiredis.ProtocolError)
    is_explained = isinstance(
        error.__cause__, ssl.SSLCertVerificationError | ConnectionRefusedError | socket.gaierror
    )
    if address.path or not is_network or is_explained:
        return error
    speaks_tls = await _probe(address)
    if speaks_tls is None or speaks_tls == (address.tls is not None):
        return error
    return StoreUnavailable(
        f"Redis at {address} cannot be reached: {SPEAKS_TLS if speaks_tls else SPEAKS_PLAIN}"
    )


async def _probe(address: Address) -> bool | None:
    """Whether the port speaks TLS; None if that cannot be found out."""
    plain, secure = await asyncio.gather(_answers_plainly(address), _answers_tls(address))
    return secure if plain != secure else None


async def _answers_plainly(address: Address) -> bool:
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_PROBE_S):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(_HELLO)
            return (await reader.read(1)) in (b"+", b"-")
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


async def _answers_tls(address: Address) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_PROBE_S):
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
        writer.transport.abort()
    except (OSError, TimeoutError):
        return False
    return True


async def _check_names(addresses: tuple[Address, ...]) -> None:
    """Whether one of the host names can be resolved. A name server that does not answer is left after a second.

    In a thread of its own: the loop's, which resolves names later, would be waited for when the process ends.
    """
    if any(address.path for address in addresses):
        return
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Exception | None] = loop.create_future()

    def look_up() -> None:
        error: Exception | None = None
        for address in addresses:
            try:
                socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as failed:
                error = failed
            else:
                error = None
                break
        with contextlib.suppress(RuntimeError):  # the loop is closed: it was not waited for
            loop.call_soon_threadsafe(_resolve, found, error)

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    done, _ = await asyncio.wait([found], timeout=_CONNECT_S)
    error = found.result() if done else TimeoutError()
    if error is not None:
        raise StoreUnavailable(why_not_connected(addresses[0], error)) from None


def _resolve(found: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not found.done():
        found.set_result(error)
