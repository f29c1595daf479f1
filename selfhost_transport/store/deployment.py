"""What all processes of a deployment must agree on, written down by the first of them: see `<prefix>:deployment`."""

from __future__ import annotations

import asyncio
from typing import Final

from selfhost_transport.errors import StoreUnsuitable
from selfhost_transport.redis_io.address_resolver import NOTIFICATIONS, address_resolver, with_notifications
from selfhost_transport.redis_io.cluster import ClusterNodes
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.link import ask
from selfhost_transport.redis_io.server_version import parse_version
from selfhost_transport.settings import Settings
from selfhost_transport.store.keys import DEFAULT_BUCKETS

BUCKETS_OF_CLUSTER: Final = 1024
"""Enough that twelve servers carry about the same; few enough that each has turns waiting where servers are busy."""
_SHARDED_SINCE: Final = (7, 0)


async def agree(redis: RedisConnection, settings: Settings, *, note: bool = True) -> Settings:
    """The settings with the number of buckets and the kind of notifications that the deployment has.

    `note`: whether to write down what is not yet; to be called before the format is noted, by which a deployment is known
    that is older than this. Raises StoreUnsuitable where the settings want another number of buckets, StoreUnavailable.
    """
    key, where = f"{settings.redis.prefix}:deployment", address_resolver(settings.redis.url)
    nodes = where if isinstance(where, ClusterNodes) else None
    flat = await redis.command("HGETALL", key)
    stated = {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
    wanted = settings.redis.buckets
    if "buckets" not in stated:
        fresh = (
            BUCKETS_OF_CLUSTER if nodes is not None and await _is_new(redis, settings) else DEFAULT_BUCKETS
        )
        stated["buckets"] = await _noted(redis, key, "buckets", str(wanted or fresh), note=note)
    buckets = int(stated["buckets"])
    if wanted not in (None, buckets):
        raise StoreUnsuitable(
            f"the deployment under the prefix {settings.redis.prefix!r} has {buckets} buckets; the settings say {wanted}. "
            "Leave `buckets` out of the settings; another number needs a new deployment, into which `selfhost-transport "
            "import` copies conversations"
        )
    url = settings.redis.url
    if nodes is not None and nodes.chosen is not None:
        if note and stated.get(NOTIFICATIONS) != nodes.chosen:
            await redis.command("HSET", key, NOTIFICATIONS, nodes.chosen)
    elif nodes is not None:
        kind = stated.get(NOTIFICATIONS) or await _noted(
            redis, key, NOTIFICATIONS, await _best_of(nodes), note=note
        )
        url = with_notifications(url, kind)
    return settings.model_copy(
        update={"redis": settings.redis.model_copy(update={"url": url, "buckets": buckets})}
    )


async def note_again(redis: RedisConnection, agreed: Settings) -> None:
    """Write down what was agreed, after it was lost with all other data. Raises StoreUnavailable."""
    key = f"{agreed.redis.prefix}:deployment"
    await redis.command("HSETNX", key, "buckets", agreed.redis.buckets or DEFAULT_BUCKETS)
    where = address_resolver(agreed.redis.url)
    if isinstance(where, ClusterNodes) and where.chosen is not None:
        await redis.command("HSETNX", key, NOTIFICATIONS, where.chosen)


async def _is_new(redis: RedisConnection, settings: Settings) -> bool:
    """Whether no process has begun: every one notes the format, and every gateway has the secret."""
    prefix = settings.redis.prefix
    found = await asyncio.gather(
        *(redis.command("EXISTS", f"{prefix}:{name}") for name in ("format", "secret"))
    )
    return not any(found)


async def _noted(redis: RedisConnection, key: str, field: str, value: str, *, note: bool) -> str:
    if not note:
        return value
    # Another process may have been first.
    await redis.command("HSETNX", key, field, value)
    found: bytes = await redis.command("HGET", key, field)
    return found.decode()


async def _best_of(nodes: ClusterNodes) -> str:
    """Sharded notifications where every primary has them."""
    addresses = {nodes.at(owned.host, owned.port) for owned in await nodes.owners()}
    infos = await asyncio.gather(*(ask(address, "INFO", "server") for address in addresses))
    versions = [_version(info.decode()) for info in infos]
    return "sharded" if min(versions) >= _SHARDED_SINCE else "plain"


def _version(info: str) -> tuple[int, int]:
    lines = [line.partition(":") for line in info.splitlines()]
    return parse_version(next((value for name, _, value in lines if name == "redis_version"), ""))
