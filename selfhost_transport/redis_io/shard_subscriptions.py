"""Sharded notifications of a Cluster: each channel is subscribed to at the server that has its slot.

A channel follows its slot: the server that gives a slot away ends its subscriptions, and a server that is lost ends all of
its own. Its listeners are notified afterwards that it may have missed something.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from functools import partial
from typing import Any, Final

import hiredis
from redis.crc import key_slot

from selfhost_transport.errors import StoreUnavailable
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.cluster import ClusterNodes, moved_to
from selfhost_transport.redis_io.link import Link, pack
from selfhost_transport.redis_io.pipeline import FIRST_DELAY_S, LONGEST_DELAY_S
from selfhost_transport.redis_io.refusals import Refusal, as_transport_error, refusal_of
from selfhost_transport.redis_io.subscriptions import (
    LOG_AGAIN_S,
    PING_INTERVAL_S,
    OnMessage,
    OnMissed,
    OnReconnect,
    ReadScope,
    pass_on,
)

logger = logging.getLogger(__name__)

_COMPARE_EVERY_S: Final = 15.0
"""How often the slots are read without a reason: a server that is cut off ends no subscription."""


class _Channel:
    __slots__ = ("asked", "callback", "confirmed", "missed", "name", "node", "resuming", "slot")

    def __init__(self, name: bytes, callback: OnMessage, missed: OnMissed | None) -> None:
        self.name = name
        self.slot = key_slot(name)
        self.callback = callback
        self.missed = missed
        self.confirmed: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()
        # Where it was asked for, and where that was confirmed.
        self.asked: _Node | None = None
        self.node: _Node | None = None
        # It was confirmed before, and is not at the moment.
        self.resuming = False


class _Node:
    """The connection to one server."""

    def __init__(self, owner: ShardSubscriptions, address: Address) -> None:
        self._owner = owner
        self.address = address
        self._link: Link | None = None
        self._answered = True
        self._pinging: asyncio.TimerHandle | None = None

    async def open(self, timeout_s: float, batch: ReadScope | None) -> None:
        """Raises StoreUnavailable."""
        on_replies = None if batch is None else partial(self._on_replies, batch)
        self._link = await Link.open(self.address, self._on_reply, self._on_lost, timeout_s, on_replies)
        self._ping()

    @property
    def is_open(self) -> bool:
        return self._link is not None

    def send(self, *commands: tuple[str | bytes, ...]) -> None:
        if self._link is not None and commands:
            self._link.write([pack(command) for command in commands])

    def close(self) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
        if self._link is not None:
            self._link.close()
            self._link = None

    def _on_replies(self, batch: ReadScope, replies: list[Any]) -> None:
        self._answered = True
        pass_on(replies, batch, self._owner.callbacks, self._on_reply)

    def _on_reply(self, reply: Any) -> None:
        self._answered = True
        if isinstance(reply, hiredis.ReplyError):
            self._owner.refused(self, str(reply))
        elif isinstance(reply, list) and len(reply) == 3:
            kind, name, payload = reply
            if kind == b"smessage":
                self._owner.received(name, payload)
            elif kind == b"ssubscribe":
                self._owner.confirmed(self, name)
            elif kind == b"sunsubscribe":
                self._owner.ended(self, name)

    def _on_lost(self, error: Exception | None) -> None:
        if self._link is not None:
            self._link = None
            self._owner.lost(self, error)

    def _ping(self) -> None:
        """Notices a server that is gone without closing its socket."""
        if self._link is None:
            return
        if not self._answered:
            self._link.abort()
            return
        self._answered = False
        self.send(("PING",))
        self._pinging = asyncio.get_running_loop().call_later(PING_INTERVAL_S, self._ping)


class ShardSubscriptions:
    """See `Subscriber`."""

    def __init__(
        self,
        where: ClusterNodes,
        on_reconnect: OnReconnect | None,
        timeout_s: float,
        batch: ReadScope | None,
    ) -> None:
        self._where = where
        self._on_reconnect = on_reconnect
        self._timeout_s = timeout_s
        self._batch = batch
        self._channels: dict[bytes, _Channel] = {}
        # Of the same channels.
        self.callbacks: dict[bytes, OnMessage] = {}
        self._slots: dict[int, dict[bytes, _Channel]] = {}
        # Where each slot in use is subscribed to, and those for which that has to be found out.
        self._nodes: dict[Address, _Node] = {}
        self._at: dict[int, _Node] = {}
        self._homeless: set[int] = set()
        # Named by a server that gave the slot away; believed once.
        self._named: dict[int, Address] = {}
        self._resuming = 0
        # Some channel without a callback of its own missed something.
        self._missed = False
        self._placing: asyncio.Task[None] | None = None
        self._comparing: asyncio.Task[None] | None = None
        self._stale = False
        # Before the next attempt to find slots; 0 after one that succeeded.
        self._delay_s = 0.0
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether every channel that was confirmed still is."""
        return not self._resuming

    async def subscribe(self, channel: str, callback: OnMessage, missed: OnMissed | None) -> None:
        """See `Subscriber.subscribe`."""
        if self._closed:
            raise StoreUnavailable("the subscriber was closed by this process")
        await self.unsubscribe(channel)
        one = _Channel(channel.encode(), callback, missed)
        confirmed = one.confirmed
        assert confirmed is not None
        self._channels[one.name] = one
        self.callbacks[one.name] = callback
        self._slots.setdefault(one.slot, {})[one.name] = one
        self._ask([one])
        if self._comparing is None:
            self._comparing = asyncio.get_running_loop().create_task(self._compare(), name="redis-shards")
        await confirmed

    async def unsubscribe(self, channel: str) -> None:
        """Stop a channel's callbacks."""
        one = self._channels.pop(channel.encode(), None)
        self.callbacks.pop(channel.encode(), None)
        if one is None:
            return
        others = self._slots[one.slot]
        del others[one.name]
        if not others:
            del self._slots[one.slot]
            self._at.pop(one.slot, None)
            self._homeless.discard(one.slot)
        if one.confirmed is not None:
            one.confirmed.cancel()
        if (node := one.node or one.asked) is not None:
            node.send(("SUNSUBSCRIBE", one.name))
        self._resumed(one)

    async def close(self) -> None:
        """End all subscriptions and disconnect."""
        self._closed = True
        tasks = [task for task in (self._placing, self._comparing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node in self._nodes.values():
            node.close()
        for one in self._channels.values():
            if one.confirmed is not None:
                one.confirmed.cancel()

    # What a server says

    def received(self, name: bytes, payload: bytes) -> None:
        """A notification."""
        if (one := self._channels.get(name)) is not None:
            one.callback(payload)

    def confirmed(self, node: _Node, name: bytes) -> None:
        """A subscription."""
        one = self._channels.get(name)
        if one is None or one.asked is not node:
            return
        one.node = node
        self._delay_s = 0.0
        if one.confirmed is not None and not one.confirmed.done():
            one.confirmed.set_result(None)
        one.confirmed = None
        self._resumed(one)

    def ended(self, node: _Node, name: bytes) -> None:
        """The end of one: asked for, or because the slot is no longer there."""
        one = self._channels.get(name)
        if one is not None and one.node is node:
            self._lose([one])

    def refused(self, node: _Node, text: str) -> None:
        """Which channel is meant is not said, but its slot is. Asked again unless no later attempt can succeed."""
        asked = [one for one in self._channels.values() if one.asked is node and one.node is not node]
        if text.startswith("MOVED "):
            slot = int(text.split(" ")[1])
            if (named := moved_to(text, self._where)) is not None:
                self._named[slot] = named
            asked = [one for one in asked if one.slot == slot]
        elif refusal_of(text) is Refusal.FINAL:
            logger.error("redis.subscribe_refused address=%s error=%s", node.address, text)
            for one in asked:
                if one.confirmed is not None and not one.confirmed.done():
                    one.confirmed.set_exception(as_transport_error(text))
                    self._forget(one)
            asked = [one for one in asked if one.resuming]
        self._lose(asked)

    def lost(self, node: _Node, error: Exception | None) -> None:
        """A server, with all its subscriptions."""
        if self._closed:
            return
        if self._nodes.get(node.address) is node:
            del self._nodes[node.address]
        theirs = [one for one in self._channels.values() if node in (one.node, one.asked)]
        if theirs:
            logger.warning("redis.subscription_lost address=%s error=%s", node.address, error)
        self._lose(theirs)

    # Where channels are asked for

    def _ask(self, channels: list[_Channel]) -> None:
        """At the server that has their slot; where it is not known, it is found out first."""
        by_node: dict[_Node, list[_Channel]] = {}
        for one in channels:
            node = self._at.get(one.slot)
            if node is None or not node.is_open:
                self._homeless.add(one.slot)
            else:
                one.asked, one.node = node, None
                by_node.setdefault(node, []).append(one)
        for node, theirs in by_node.items():
            node.send(*(("SSUBSCRIBE", one.name) for one in theirs))
        if self._homeless and not self._closed and (self._placing is None or self._placing.done()):
            self._placing = asyncio.get_running_loop().create_task(self._place(), name="redis-subscribe")

    def _lose(self, channels: list[_Channel]) -> None:
        for one in channels:
            if one.confirmed is None and not one.resuming:
                one.resuming = True
                self._resuming += 1
            one.node = one.asked = None
            self._at.pop(one.slot, None)
        if channels:
            self._stale = True
            self._ask(channels)

    def _resumed(self, one: _Channel) -> None:
        """Subscribed again, or given up meanwhile: what was missed can be looked for now (P7)."""
        if not one.resuming:
            return
        one.resuming = False
        self._resuming -= 1
        if one.missed is None:
            self._missed = True
        elif one.name in self._channels:
            one.missed()
        if not self._resuming and self._missed:
            self._missed = False
            if self._on_reconnect is not None:
                self._on_reconnect()

    def _forget(self, one: _Channel) -> None:
        self._channels.pop(one.name, None)
        self.callbacks.pop(one.name, None)
        self._slots.get(one.slot, {}).pop(one.name, None)

    async def _place(self) -> None:
        """Find the server of every slot that is in no known place, until there is none."""
        logged_at = -math.inf
        while self._homeless:
            await asyncio.sleep(self._delay_s)  # paces looking while no server has the slot
            self._delay_s = min(max(FIRST_DELAY_S, self._delay_s * 2), LONGEST_DELAY_S)
            slots, self._homeless = self._homeless & self._slots.keys(), set()
            for error in await self._place_all(slots):
                if time.monotonic() - logged_at >= LOG_AGAIN_S:
                    logger.warning("redis.subscribe_failed error=%s", error)
                    logged_at = time.monotonic()

    async def _place_all(self, slots: set[int]) -> list[StoreUnavailable]:
        """Ask for the channels of these slots where they are; what failed stays to be placed."""
        by_address: dict[Address, list[int]] = {}
        try:
            owners = await self._where.owners(fresh=self._stale)
        except StoreUnavailable as error:
            self._homeless |= slots
            return [error]
        self._stale = False
        for slot in slots:
            address = self._named.pop(slot, None) or self._where.at_slot(owners, slot)
            if address is None:
                self._stale = True
                self._homeless.add(slot)
            else:
                by_address.setdefault(address, []).append(slot)
        failed = await asyncio.gather(*(self._go(*one) for one in by_address.items()))
        return [error for error in failed if error is not None]

    async def _go(self, address: Address, slots: list[int]) -> StoreUnavailable | None:
        """Subscribe at a server to all channels of slots; why it cannot be reached."""
        node = self._nodes.get(address)
        if node is None or not node.is_open:
            node = _Node(self, address)
            try:
                await node.open(self._timeout_s, self._batch)
            except StoreUnavailable as error:
                self._stale = True
                self._homeless.update(slots)
                return error
            self._nodes[address] = node
        here = [slot for slot in slots if slot in self._slots]
        self._at.update(dict.fromkeys(here, node))
        self._ask([one for slot in here for one in self._slots[slot].values() if one.node is not node])
        return None

    async def _compare(self) -> None:
        """Follow slots whose former server says nothing, and leave servers that have none of ours."""
        while True:
            await asyncio.sleep(_COMPARE_EVERY_S)  # the clock of the comparison
            try:
                owners = await self._where.owners(fresh=True)
            except StoreUnavailable:
                continue  # said where it is needed
            at = {slot: node.address for slot, node in self._at.items()}
            for owned in owners:
                address = self._where.at(owned.host, owned.port)
                for slot in [
                    slot for slot in at if owned.first <= slot <= owned.last and at[slot] != address
                ]:
                    former = self._at.pop(slot)
                    channels = list(self._slots.get(slot, {}).values())
                    former.send(*(("SUNSUBSCRIBE", one.name) for one in channels))
                    self._lose(channels)
            used = set(self._at.values())
            for node in [node for node in self._nodes.values() if node not in used]:
                del self._nodes[node.address]
                node.close()
