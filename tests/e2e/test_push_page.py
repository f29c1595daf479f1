"""Web push from the chat page's switch to the notification, in Chromium."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import orjson

from selfhost_transport.settings import load_settings
from selfhost_transport.store.stores import Stores
from selfhost_transport.wire import vapid
from tests.e2e.node import run_suite
from tests.machine import browser
from tests.processes import Stack, wait_until
from tests.push_service import Browser, push_service

CONFIG = """
[gateway]
dev = true

[push]
private_key = "KEY"
subject = "mailto:ops@example.com"
services = ["SERVICE"]
wait_ms = 300
"""
PICTURES = os.environ.get("SELFHOST_TRANSPORT_PICTURES")


async def test_a_person_who_left_is_shown_it_in_chromium(stack: Stack, tmp_path: Path) -> None:
    private_key = vapid.new_private_key()
    public_key = vapid.public_key_of(private_key)
    async with push_service(public_key) as service:
        config = CONFIG.replace("KEY", private_key).replace("SERVICE", service.url)
        gateway = await stack.gateway(config=config)
        await stack.worker(config=config)
        phone, said = Browser(service.url, "phone"), tmp_path / "said.json"

        async def read() -> None:
            await wait_until(lambda: service.posted, 60)
            part = tmp_path / "part"
            part.write_bytes(orjson.dumps(service.of(phone)[0]))
            part.rename(said)

        reading = asyncio.create_task(read())
        env = {
            "URL": gateway.url,
            "CHROMIUM": browser(),
            "SUBSCRIPTION": orjson.dumps(phone.subscription).decode(),
            "SAID": str(said),
            "PUBLIC_KEY": public_key,
            "SHOTS": str(Path(PICTURES).resolve()) if PICTURES else "",
        }
        await run_suite(stack, "push.test.mjs", env)
        await reading
        assert len(service.posted) == 1
        stores = Stores.build(load_settings(redis=stack.redis_url, redis_prefix=stack.redis_prefix))
        try:
            assert await stores.push.subscriptions("ann") == []
        finally:
            await stores.close()
