"""`migrate`: moves a deployment's data to another Redis, with progress."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

import typer

from selfhost_transport.migration.migration import Migration
from selfhost_transport.migration.servers import Side
from selfhost_transport.settings import Settings
from selfhost_transport.store.deployment import BUCKETS_OF_CLUSTER, agree

_EVERY_S: Final = 1.0


def run_migrate(source: Settings, target: Settings) -> None:
    """Raises what `Migration.run` does."""
    # The number of buckets in the settings is that of the target.
    redis = source.redis.model_copy(update={"buckets": None})
    asyncio.run(_run(source.model_copy(update={"redis": redis}), target))


async def _run(source: Settings, target: Settings) -> None:
    here, there = (Side(one.redis.url, one.redis.prefix) for one in (source, target))
    try:
        old = (await agree(here.redis, source, note=False)).redis.buckets
        assert old is not None
        fitting = BUCKETS_OF_CLUSTER if there.is_cluster and BUCKETS_OF_CLUSTER % old == 0 else old
        migration = Migration(here, there, old, target.redis.buckets or fitting, _Progress())
        began = time.monotonic()
        await migration.run()
    finally:
        await asyncio.gather(here.close(), there.close())
    done = migration.done
    typer.echo(
        f"migrated: {done['copied']} keys copied, {done['split']} split, {done['left behind']} not needed any more, "
        f"{done['compared']} compared, in {time.monotonic() - began:.1f} s; {migration.new} buckets. "
        "Start gateways and workers on the new Redis; the old data stays and refuses to be started."
    )


@dataclass(slots=True)
class _Progress:
    """A line each second."""

    said_at: float = field(default_factory=time.monotonic)

    def __call__(self, what: str, keys: int) -> None:
        now = time.monotonic()
        if now - self.said_at >= _EVERY_S:
            self.said_at = now
            typer.echo(f"{what} {keys} keys", err=True)
