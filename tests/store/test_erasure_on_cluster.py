"""The same on a Cluster: each script stays within one slot, and the walk through the keys asks the right server (OPS-12)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import redis

from selfhost_transport.settings import load_settings
from selfhost_transport.store.stores import Stores
from tests.redis_io.clusters import Clustered, clustered
from tests.store.everything import mentions
from tests.store.test_erasure import NAME, fill


async def test_nothing_of_an_erased_session_remains_on_any_server(tmp_path: Path) -> None:
    def everywhere(cluster: Clustered, text: str) -> list[str]:
        found: set[str] = set()
        for port in cluster.ports[:3]:
            with redis.Redis(port=port) as server:
                found.update(mentions(server, "sht", text))
        return sorted(found)

    with clustered(tmp_path) as cluster:
        stores = await Stores.open(load_settings(redis=cluster.url))
        try:
            await fill(stores)
            assert len(everywhere(cluster, NAME)) > 30
            erased = await stores.erasure.erase(NAME, "olga")
        finally:
            await stores.close()
        assert (erased.turns_cancelled, erased.receipts_expire) == (3, False)
        assert everywhere(cluster, NAME) == []
        assert len(everywhere(cluster, hashlib.sha1(NAME.encode()).hexdigest())) == 1
