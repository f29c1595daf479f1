"""The number of buckets is the deployment's: written down once, kept whatever the settings leave open."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import InvalidArgument, StoreUnsuitable
from selfhost_transport.redis_io.address_resolver import address_resolver
from selfhost_transport.redis_io.cluster import ClusterNodes
from selfhost_transport.redis_io.databases import SCRIPT_BEGINS, Database
from selfhost_transport.settings import load_settings
from selfhost_transport.store import scripts
from selfhost_transport.store.keys import DEFAULT_BUCKETS, Keyspace
from selfhost_transport.store.stores import Stores


async def test_a_new_deployment_writes_down_how_many_buckets_it_has(
    redis_url: str, redis_prefix: str
) -> None:
    first = await Stores.open(load_settings(redis=redis_url, redis_prefix=redis_prefix, buckets=40))
    assert first.keys.buckets == first.settings.redis.buckets == 40
    await first.close()
    second = await Stores.open(load_settings(redis=redis_url, redis_prefix=redis_prefix))
    assert second.keys == Keyspace(redis_prefix, 40)
    await second.close()
    with pytest.raises(StoreUnsuitable, match=r"has 40 buckets; the settings say 16.*import"):
        await Stores.open(load_settings(redis=redis_url, redis_prefix=redis_prefix, buckets=16))


async def test_a_command_writes_nothing_down(redis_url: str, redis_prefix: str) -> None:
    stores = await Stores.open(load_settings(redis=redis_url, redis_prefix=redis_prefix), note_format=False)
    assert stores.keys.buckets == DEFAULT_BUCKETS
    assert await stores.redis.command("EXISTS", f"{redis_prefix}:deployment") == 0
    await stores.close()


def test_what_a_cluster_publishes_with_is_said_by_its_address() -> None:
    where = address_resolver("redis+cluster://one,two?notifications=sharded&client_name=x")
    assert isinstance(where, ClusterNodes) and where.sharded and where.seeds[0].client_name == "x"
    plain = address_resolver("redis+cluster://one?notifications=plain")
    assert isinstance(plain, ClusterNodes) and not plain.sharded
    with pytest.raises(InvalidArgument, match="plain or sharded"):
        address_resolver("redis+cluster://one?notifications=loud")


def test_every_script_that_publishes_does_so_to_the_slot_only() -> None:
    sharded, published = Database(0, sharded=True), 0
    for script in scripts.everything():
        if not script.source.startswith(SCRIPT_BEGINS):
            assert "PUBLISH" not in script.source
            continue
        changed = sharded.script(script)
        published += changed.source.count("'SPUBLISH'")
        assert "'PUBLISH'" not in changed.source
        assert (changed.digest != script.digest) == ("'PUBLISH'" in script.source)
    assert published > 20
