"""Push subscriptions of people, and what is to be delivered to them: at least once, given up in the end, bounded.

All of it has one hash tag: pushes are few beside the tokens of a deployment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from selfhost_transport.errors import NotFound
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.fields import PushFields as Item
from selfhost_transport.store.keys import Keyspace

MOST_PER_PERSON: Final = 10
"""Browsers of one person that are sent pushes; of more, those that were not used for longest are dropped."""
_BURIED_MS: Final = 30 * 86_400_000
_PAGE: Final = 5_000
_ITEM: Final = re.compile(r"\d+-\d+")


@dataclass(frozen=True, slots=True)
class PushSource:
    """The credentials that a subscription was made with: it ends when those are revoked. Empty ones never are.

    `key_name`: the key, or the issuer; `resources`: those of the token's capability.
    """

    key_name: str = ""
    issued_ms: int | None = None
    client_id: str | None = None
    revocation_key: str | None = None
    resources: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class PushSubscription:
    """Where a browser is sent pushes, and the keys they are encrypted with (RFC 8291), base64url.

    `expires_ms`: since the epoch. `server_key`: the public key of the gateway that the browser subscribed with.
    """

    endpoint: str
    p256dh: str
    auth: str
    server_key: str
    expires_ms: int
    source: PushSource = field(default_factory=PushSource)

    @property
    def subscription_id(self) -> str:
        """Names it; an endpoint itself is a secret of the browser's."""
        return subscription_id(self.endpoint)

    def pack(self) -> bytes:
        """The field of the hash."""
        by = self.source
        source = (by.key_name, by.issued_ms, by.client_id, by.revocation_key, by.resources)
        rest = [self.endpoint, self.p256dh, self.auth, self.server_key, *source]
        return b"%d %s" % (self.expires_ms, orjson.dumps(rest))

    @classmethod
    def unpack(cls, packed: bytes) -> PushSubscription:
        """Read a field."""
        expires, _, rest = packed.partition(b" ")
        endpoint, p256dh, auth, server_key, *by = orjson.loads(rest)
        key_name, issued_ms, client_id, revocation_key, resources = by
        among = None if resources is None else tuple(resources)
        source = PushSource(key_name, issued_ms, client_id, revocation_key, among)
        return cls(endpoint, p256dh, auth, server_key, int(expires), source)


def subscription_id(endpoint: str) -> str:
    """The id of the subscription with an endpoint."""
    return hashlib.sha256(endpoint.encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class PushDelivery:
    """Something to be delivered to one browser. `attempts` counts this one; `content` is JSON text."""

    delivery_id: str
    attempts: int
    person: str
    content: bytes
    subscription: PushSubscription


@dataclass(frozen=True, slots=True)
class QueuedPush:
    """A delivery that was not made yet: for whom, and what it says."""

    delivery_id: str
    person: str
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UndeliveredPush:
    """A delivery that was given up, and why. `letter_id` names it."""

    letter_id: str
    person: str
    subscription_id: str
    content: dict[str, Any]
    attempts: int
    reason: str
    time_ms: int


class PushStore:
    """Subscriptions by client id, and the queue of deliveries. Raises StoreUnavailable."""

    def __init__(self, redis: RedisConnection, keys: Keyspace) -> None:
        self._redis = redis
        self._base = keys.push

    # Subscriptions

    async def subscribe(self, person: str, one: PushSubscription, keep_ms: int) -> int:
        """Add or renew a subscription; `keep_ms`: how long it lives. Returns how many the person has. Raises StoreFull."""
        call = scripts.call(
            "push_subscribe", subscriptions=self._of(person), people=f"{self._base}people", person=person,
            subscription=one.subscription_id, value=one.pack(), keep_ms=keep_ms, most=MOST_PER_PERSON,
        )  # fmt: skip
        return int(await self._redis.call(*call))

    async def unsubscribe(self, person: str, ids: Iterable[str]) -> int:
        """Remove subscriptions of a person by their ids. Returns how many were there."""
        call = scripts.call(
            "push_unsubscribe", list(ids), subscriptions=self._of(person), people=f"{self._base}people", person=person
        )  # fmt: skip
        return int(await self._redis.call(*call))

    async def subscriptions(self, person: str) -> list[PushSubscription]:
        """Those of a person; some may have expired."""
        packed = await self._redis.command("HGETALL", self._of(person)) or []
        return [PushSubscription.unpack(one) for one in packed[1::2]]

    async def people(self) -> list[str]:
        """Everyone who has subscriptions."""
        found: list[str] = []
        while True:
            start = len(found)
            page = await self._redis.command("ZRANGE", f"{self._base}people", start, start + _PAGE - 1)
            found += [name.decode() for name in page or []]
            if len(page or []) < _PAGE:
                return found

    # Deliveries

    async def queue(self, event_id: str, person: str, content: bytes, *, wait_ms: int, keep_ms: int) -> int:
        """Deliver an event to every browser of a person, in `wait_ms`; once for each event. Returns to how many."""
        call = scripts.call(
            "push_queue", subscriptions=self._of(person), due=self._due, sent=f"{self._base}sent:{event_id}",
            base=self._base, event=event_id, person=person, content=content, wait_ms=wait_ms, keep_ms=keep_ms,
        )  # fmt: skip
        return int(await self._redis.call(*call))

    async def take(self, count: int, lease_ms: int) -> list[PushDelivery]:
        """Deliveries that are due, for this process alone until the lease ends."""
        reply = await self._redis.call(
            *scripts.call("push_take", due=self._due, base=self._base, lease_ms=lease_ms, count=count)
        )
        return [
            PushDelivery(
                one[0].decode(), int(one[1]), one[2].decode(), one[4], PushSubscription.unpack(one[5])
            )
            for one in reply
        ]

    async def done(self, delivery: PushDelivery) -> None:
        """It was made, or is not needed any more."""
        await self.drop(delivery.delivery_id)

    async def retry(self, delivery: PushDelivery, after_ms: int, *, counted: bool = True) -> None:
        """Try it again later; `counted`: whether this attempt was one."""
        call = scripts.call(
            "push_retry", due=self._due, delivery=self._delivery(delivery.delivery_id),
            id=delivery.delivery_id, after_ms=after_ms, counted=int(counted),
        )  # fmt: skip
        await self._redis.call(*call)

    async def bury(self, delivery: PushDelivery, reason: str) -> None:
        """Give it up; it is kept for 30 days."""
        call = scripts.call(
            "push_bury", due=self._due, delivery=self._delivery(delivery.delivery_id),
            undelivered=f"{self._base}undelivered", id=delivery.delivery_id, reason=reason, keep_ms=_BURIED_MS,
        )  # fmt: skip
        await self._redis.call(*call)

    async def buried(self) -> list[UndeliveredPush]:
        """What was given up, oldest first."""
        items = await self._redis.command("XRANGE", f"{self._base}undelivered", "-", "+")
        return [_undelivered(item[0].decode(), item[1]) for item in items or []]

    async def requeue(self, letter_id: str, keep_ms: int) -> None:
        """Deliver what was given up again. Raises NotFound, also where the browser has no subscription any more."""
        if _ITEM.fullmatch(letter_id) is None:
            raise NotFound(f"{letter_id[:64]!r} is not the id of a push")
        call = scripts.call(
            "push_requeue", undelivered=f"{self._base}undelivered", due=self._due, base=self._base,
            letter=letter_id, keep_ms=keep_ms,
        )  # fmt: skip
        found = int(await self._redis.call(*call))
        if found == 0:
            raise NotFound(f"no push with the id {letter_id} was given up")
        if found < 0:
            raise NotFound("the browser of this push has no subscription any more; it was dropped")

    async def queued(self) -> AsyncIterator[QueuedPush]:
        """Deliveries that were not made yet."""
        start = 0
        while names := await self._redis.command("ZRANGE", self._due, start, start + _PAGE - 1):
            start += len(names)
            for name in names:
                delivery = name.decode()
                person, content = await self._redis.command(
                    "HMGET", self._delivery(delivery), Item.PERSON, Item.CONTENT
                )
                if content is not None:
                    yield QueuedPush(delivery, person.decode(), orjson.loads(content))

    async def drop(self, delivery_id: str) -> None:
        """Forget a delivery that was not made."""
        call = scripts.call("push_done", due=self._due, delivery=self._delivery(delivery_id), id=delivery_id)
        await self._redis.call(*call)

    async def drop_buried(self, letter_id: str) -> None:
        """Forget a delivery that was given up."""
        await self._redis.command("XDEL", f"{self._base}undelivered", letter_id)

    async def waiting(self) -> int:
        """Deliveries that were not made yet."""
        return int(await self._redis.command("ZCARD", self._due))

    @property
    def _due(self) -> str:
        return f"{self._base}due"

    def _of(self, person: str) -> str:
        return f"{self._base}of:{person}"

    def _delivery(self, delivery_id: str) -> str:
        return f"{self._base}d:{delivery_id}"


def _undelivered(letter_id: str, packed: list[bytes]) -> UndeliveredPush:
    fields = {name.decode(): value for name, value in zip(packed[::2], packed[1::2], strict=True)}
    return UndeliveredPush(
        letter_id=letter_id,
        person=fields[Item.PERSON].decode(),
        subscription_id=fields[Item.SUBSCRIPTION].decode(),
        content=orjson.loads(fields[Item.CONTENT]),
        attempts=int(fields[Item.ATTEMPTS]),
        reason=fields[Item.ERROR].decode(),
        time_ms=int(letter_id.partition("-")[0]),
    )
