"""A short connection to the store, for commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from selfhost_transport.settings import Settings
from selfhost_transport.store.stores import Stores


@asynccontextmanager
async def opened_stores(settings: Settings) -> AsyncIterator[Stores]:
    """The stores of the deployment the settings describe. Raises what `Stores.open` does."""
    stores = await Stores.open(settings, note_format=False)
    try:
        yield stores
    finally:
        await stores.close()
