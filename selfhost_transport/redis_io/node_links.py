"""One socket per server of a Cluster, shared by the pipelines of all its slots.

Each slot keeps a pipeline of its own, which holds refused calls and follows its slot to another server. What they share
is the socket: the calls of one loop iteration leave each server's socket in one write, and every reply goes to the
pipeline whose turn it is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.databases import LuaScript
from selfhost_transport.redis_io.link import Link, OnLost, OnReply, pack

logger = logging.getLogger(__name__)

_SAY_AGAIN_S: Final = 1.0
"""An event that meets many slots at once is logged once in this time."""


class SlotLink:
    """What the pipeline of one slot has of a server's socket."""

    __slots__ = ("_node", "on_lost", "on_reply")

    def __init__(self, node: _NodeLink, on_reply: OnReply, on_lost: OnLost) -> None:
        self._node = node
        self.on_reply = on_reply
        self.on_lost = on_lost

    def write(self, packed: list[bytes]) -> None:
        """Send packed commands with those of the other slots."""
        self._node.write(self, packed)

    def write_together(self, packed: bytes, replies: int) -> None:
        """Send several commands that were packed together."""
        self._node.write(self, [packed], replies)

    def abort(self) -> None:
        """The server does not answer: drop the socket, for all slots."""
        self._node.abort()

    def release(self) -> None:
        """Leave this server, with no reply outstanding; `on_lost` is called soon."""
        self._node.drop(self)
        asyncio.get_running_loop().call_soon(self.on_lost, None)

    def close(self) -> None:
        """Leave for good; replies that still come are ignored."""
        self.on_reply = _ignore
        self._node.drop(self)


class _NodeLink:
    """The socket of one server."""

    def __init__(self, links: NodeLinks, address: Address) -> None:
        self._links = links
        self.address = address
        self._link: Link | None = None
        self._slots: set[SlotLink] = set()
        # Whose reply comes next.
        self._turns: deque[SlotLink] = deque()
        self._unsent: list[bytes] = []

    async def open(self, scripts: Mapping[str, LuaScript], timeout_s: float) -> None:
        """Connect, and load the scripts before anything else. Raises StoreUnavailable."""
        self._link = await Link.open(self.address, self._on_reply, self._on_lost, timeout_s)
        loading = SlotLink(self, _ignore, _ignore)
        if scripts:
            self.write(loading, [pack(("SCRIPT", "LOAD", script.source)) for script in scripts.values()])

    @property
    def is_open(self) -> bool:
        return self._link is not None

    def add(self, on_reply: OnReply, on_lost: OnLost) -> SlotLink:
        """The share of one more slot."""
        slot = SlotLink(self, on_reply, on_lost)
        self._slots.add(slot)
        return slot

    def write(self, slot: SlotLink, packed: list[bytes], replies: int | None = None) -> None:
        if not self._unsent:
            self._links.touched(self)
        self._unsent += packed
        self._turns.extend([slot] * (replies or len(packed)))

    def send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._link is not None and unsent:
            self._link.write(unsent)

    def drop(self, slot: SlotLink) -> None:
        """A slot that leaves; the last one closes the socket."""
        self._slots.discard(slot)
        if not self._slots:
            self.close()

    def close(self) -> None:
        """Close the socket, whichever slots still use it."""
        self._slots.clear()
        self._links.forget(self)
        if self._link is not None:
            self._link.close()

    def abort(self) -> None:
        if self._link is not None:
            self._link.abort()

    def _on_reply(self, reply: Any) -> None:
        self._turns.popleft().on_reply(reply)

    def _on_lost(self, error: Exception | None) -> None:
        self._link = None
        self._links.forget(self)
        slots, self._slots = self._slots, set()
        if slots:
            self._links.report("redis.connection_lost", self.address, error)
        for slot in slots:
            slot.on_lost(error)


class NodeLinks:
    """The sockets of a process to the servers of a Cluster. `scripts`: what a server is given first."""

    shared: Final = True

    def __init__(self, timeout_s: float, scripts: Mapping[str, LuaScript]) -> None:
        self._timeout_s = timeout_s
        self._scripts = scripts
        self._nodes: dict[Address, _NodeLink] = {}
        self._opening: dict[Address, asyncio.Lock] = {}
        self._touched: list[_NodeLink] = []
        self._flushes: list[Callable[[], None]] = []
        self._said: dict[str, float] = {}

    @property
    def count(self) -> int:
        """How many sockets are open."""
        return len(self._nodes)

    async def open(self, address: Address, on_reply: OnReply, on_lost: OnLost, timeout_s: float) -> SlotLink:
        """A share of the server's socket, which is connected for the first. Raises StoreUnavailable."""
        opening = self._opening.setdefault(address, asyncio.Lock())
        async with opening:
            node = self._nodes.get(address)
            if node is None or not node.is_open:
                node = _NodeLink(self, address)
                await node.open(self._scripts, self._timeout_s)
                self._nodes[address] = node
            return node.add(on_reply, on_lost)

    def flush_soon(self, flush: Callable[[], None]) -> None:
        """Run a pipeline's flush with those of the others, before anything is written."""
        if not self._flushes and not self._touched:
            asyncio.get_running_loop().call_soon(self._flush)
        self._flushes.append(flush)

    def touched(self, node: _NodeLink) -> None:
        """A socket has something to send."""
        if not self._flushes and not self._touched:
            asyncio.get_running_loop().call_soon(self._flush)
        self._touched.append(node)

    def _flush(self) -> None:
        for flush in self._flushes:
            flush()
        self._flushes.clear()
        for node in self._touched:
            node.send()
        self._touched.clear()

    def forget(self, node: _NodeLink) -> None:
        """A socket that is closed."""
        if self._nodes.get(node.address) is node:
            del self._nodes[node.address]

    def close(self) -> None:
        """Close all sockets."""
        for node in list(self._nodes.values()):
            node.close()

    def report(self, event: str, address: object, error: object) -> None:
        """Log what may meet every slot at once."""
        now = time.monotonic()
        if now - self._said.get(event, -_SAY_AGAIN_S) >= _SAY_AGAIN_S:
            self._said[event] = now
            logger.warning("%s address=%s error=%s", event, address, error)


def _ignore(_: object) -> None:
    """For replies, and a loss, that no one waits for."""
