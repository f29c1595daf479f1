"""Pushes while everything fails: services answer badly or not at all, gateways are killed, Redis is restarted."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import httpx

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import load_settings
from selfhost_transport.store.stores import Stores
from tests.gateway.pushing import CONFIG, PUBLIC_KEY, client, send, subscribe
from tests.machine import free_port
from tests.processes import Proc, Stack, wait_until
from tests.push_service import Browser, Posted, push_service

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
PEOPLE, BROWSERS = (100, 10) if LONG else (12, 3)


async def test_every_browser_gets_its_message_in_the_end(tmp_path: Path) -> None:
    chance = random.Random(7)
    async with EmbeddedRedis(tmp_path / "redis", free_port()) as redis, push_service(PUBLIC_KEY) as service:

        def moody(one: Posted) -> int:
            return chance.choice([201, 201, 201, 503, 429])

        service.answer = moody
        service.more = "retry-after: 1\r\n"
        config = CONFIG.replace("SERVICE", service.url).replace("max_attempts = 2", "max_attempts = 50")
        async with Stack.opened(redis.url, tmp_path) as stack:
            gateways = [await stack.gateway(config=config) for _ in range(2)]
            await stack.worker(config=config)
            turns = await _send_all(gateways[0], service.url)
            await _break(stack, redis, gateways, config)
            service.answer = 201
            taken = Counter[str]()

            def all_taken() -> bool:
                taken.clear()
                taken.update(one.path for one in service.posted)
                return len(taken) == PEOPLE * BROWSERS

            await wait_until(all_taken, 90 if LONG else 45, "every browser was posted to")
            stores = Stores.build(load_settings(redis=redis.url, redis_prefix=stack.redis_prefix))

            async def settled() -> bool:
                return await stores.push.waiting() == 0

            # A lease of one that was under way in a gateway that was killed has to end.
            await wait_until(settled, 60, "nothing waits any more")
            assert await stores.push.buried() == []
            await stores.close()
            for browser, turn in turns.items():
                said = {one["turnId"] for one in service.of(browser)}
                assert said == {turn}, "its own, and nothing else"


async def _send_all(gateway: Proc, url: str) -> dict[Browser, str]:
    """A turn of each person, and the browsers that it is announced to."""
    found: dict[Browser, str] = {}
    async with client(gateway) as http:

        async def one(who: str) -> None:
            browsers = [Browser(url, f"{who}-{number}") for number in range(BROWSERS)]
            for browser in browsers:
                await subscribe(http, browser, who)
            turn = await send(http, f"chat:{who}", by=who)
            found.update(dict.fromkeys(browsers, turn))

        await asyncio.gather(*(one(f"p{number}") for number in range(PEOPLE)))
    return found


async def _break(stack: Stack, redis: EmbeddedRedis, gateways: list[Proc], config: str) -> None:
    gateways[0].kill()
    await asyncio.to_thread(redis.stop)
    await redis.astart()
    gateways.append(await stack.gateway(config=config))
    gateways[1].kill()

    async def ready() -> bool:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{gateways[-1].url}/readyz")).status_code == 200

    await wait_until(ready, 10)
