"""What the cases share: clients that are closed at the end, channel names, waiting for conditions, the list of cases.

The environment says where to connect: PORTS (comma separated, one per gateway), KEY, FORMAT (json | msgpack).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import jwt
from ably import AblyRealtime, AblyRest
from ably.util.exceptions import AblyException

KEY = os.environ["KEY"]
KEY_NAME, KEY_SECRET = KEY.split(":")
PORTS = [int(port) for port in os.environ["PORTS"].split(",")]
BINARY = os.environ.get("FORMAT", "msgpack") == "msgpack"
PATIENCE_S = 20.0

_numbers = itertools.count(1)


class Stage:
    """The clients of one case."""

    def __init__(self) -> None:
        self._open: list[Any] = []

    def realtime(self, client_id: str | None = None, *, gateway: int = 0, **options: Any) -> Any:
        """A realtime client, connecting. The trailing slash puts the port into the SDK's websocket address."""
        if not {"token", "token_details", "auth_callback", "key"} & options.keys():
            options["key"] = KEY
        if client_id is not None:
            options["client_id"] = client_id
        client = AblyRealtime(
            endpoint=f"127.0.0.1:{PORTS[gateway % len(PORTS)]}/",
            tls=False,
            use_binary_protocol=BINARY,
            disconnected_retry_timeout=300,
            **options,
        )
        self._open.append(client)
        return client

    def rest(self, client_id: str | None = None, *, gateway: int = 0, **options: Any) -> Any:
        """A REST client; over plain http the SDK exchanges the key for a token."""
        if not {"token", "token_details", "auth_callback", "key"} & options.keys():
            options.update(key=KEY, use_token_auth=True)
        if client_id is not None:
            options["client_id"] = client_id
        client = AblyRest(
            endpoint="127.0.0.1",
            port=PORTS[gateway % len(PORTS)],
            tls=False,
            use_binary_protocol=BINARY,
            **options,
        )
        self._open.append(client)
        return client

    async def close(self) -> None:
        """Close every client, in whatever state it is."""
        for client in self._open:
            await asyncio.wait_for(client.close(), PATIENCE_S)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing the SDK can do. `reason`: why it is not supported; the case then checks how it is refused."""

    feature: str
    play: Callable[[Stage], Awaitable[None]]
    reason: str = ""


CASES: list[Case] = []


def case(feature: str, *, reason: str = "") -> Callable[[Callable[[Stage], Awaitable[None]]], None]:
    """Put a coroutine function on the list of cases."""

    def add(play: Callable[[Stage], Awaitable[None]]) -> None:
        CASES.append(Case(feature, play, reason))

    return add


def unique(namespace: str = "plain") -> str:
    """A channel name that no one used before."""
    return f"{namespace}:py-{os.getpid()}-{time.time_ns():x}-{next(_numbers)}"


async def until(what: str, condition: Callable[[], Any]) -> Any:
    """The first true value of a condition. Raises AssertionError after `PATIENCE_S`."""
    give_up = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")
        await asyncio.sleep(0.01)
    return value


async def connected(client: Any) -> Any:
    """The client, once its connection is up."""
    await until("connected", lambda: client.connection.state == "connected")
    return client


async def heard(channel: Any) -> list[Any]:
    """Every message that reaches a channel from now on."""
    messages: list[Any] = []
    # The SDK does not take a built-in function for a listener.
    await channel.subscribe(lambda message: messages.append(message))
    return messages


def token(**claims: Any) -> str:
    """A JWT for the key, one hour long unless claims say otherwise; claims of the protocol by their full names."""
    now = time.time()
    lasting = {"iat": now, "exp": now + 3600, **claims}
    return jwt.encode(lasting, KEY_SECRET, algorithm="HS256", headers={"kid": KEY_NAME})


@asynccontextmanager
async def refused(code: int) -> AsyncIterator[None]:
    """The body must fail with an error of the service that has this code."""
    try:
        yield
    except AblyException as error:
        assert error.code == code, f"code {error.code} ({error.message}) instead of {code}"
        assert error.status_code, "an error needs a status code"
        return
    raise AssertionError(f"was accepted instead of refused with {code}")


async def cut(client: Any) -> None:
    """Lose the socket without a word, as a network does, and wait until the client has noticed."""
    manager = client.connection.connection_manager
    transport = manager.transport
    transport.websocket.transport.abort()
    await until("the loss is noticed", lambda: manager.transport is not transport)
