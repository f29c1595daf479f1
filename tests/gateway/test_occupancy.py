"""Who is attached, counted over all gateways: status, enumeration, events (protocol sections 9.2 and 14.4)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.gateway.raw import CONNECTED, KEY, MESSAGE, Map, RawClient, client, joined
from tests.processes import Proc, Stack, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]
CONFIG = """
[gateway]
presence_lease_ms = 1000

[[keys]]
name = "app.key"
secret = "secret"

[[keys]]
name = "app.some"
secret = "some"
capability = { "*" = ["subscribe", "publish"], "plain:*" = ["channel-metadata"] }
"""
SUBSCRIBE_ONLY = 262144


class Site:
    """Two gateways, and REST at the first."""

    def __init__(self, stack: Stack, gateways: list[Proc], http: httpx.AsyncClient) -> None:
        self.stack = stack
        self.gateways = gateways
        self.http = http

    async def metrics(self, channel: str) -> dict[str, int]:
        found: dict[str, int] = (await self.http.get(f"/channels/{channel}")).json()["status"]["occupancy"][
            "metrics"
        ]
        return found

    async def becomes(self, channel: str, **counts: int) -> None:
        async def so() -> bool:
            metrics = await self.metrics(channel)
            return all(metrics[name] == count for name, count in counts.items())

        await wait_until(so, 10, f"{channel} {counts}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with Stack.opened(redis_server.url, tmp_path_factory.mktemp("occupancy")) as stack:
        gateways = [await stack.gateway(config=CONFIG) for _ in range(2)]
        name, _, secret = KEY.partition(":")
        async with httpx.AsyncClient(base_url=gateways[0].url, auth=(name, secret)) as http:
            yield Site(stack, gateways, http)


async def occupancy(raw: RawClient, wanted: Callable[[dict[str, int]], bool]) -> Map:
    def is_it(frame: Map) -> bool:
        message = frame["messages"][0] if frame["action"] == MESSAGE else {}
        return message.get("name") == "[meta]occupancy" and wanted(json.loads(message["data"])["metrics"])

    return await raw.next(is_it)


async def test_counts_are_those_of_all_gateways(both: Site, unique: Names) -> None:
    channel = unique("plain")
    first, second = both.gateways
    async with client(first.url) as one, client(second.url) as two:
        await joined(one, channel)
        assert (await both.metrics(channel))["connections"] == 1, "reported at once on the same gateway"
        await joined(two, channel, flags=SUBSCRIBE_ONLY)
        await both.becomes(
            channel, connections=2, subscribers=2, publishers=1, presenceConnections=1, presenceSubscribers=1
        )
        await two.attach(channel)
        await both.becomes(channel, publishers=2)
        await one.send({"action": 12, "channel": channel})
        await both.becomes(channel, connections=1)
        await two.drop()
        await both.becomes(channel, connections=0)
    status = (await both.http.get(f"/channels/{channel}")).json()["status"]
    assert status["isActive"] is True


async def test_channels_in_use_are_listed_in_pages(both: Site, unique: Names) -> None:
    names = sorted(unique(f"list-{index}") for index in range(5))
    async with client(both.gateways[1].url) as raw:
        assert (await raw.next())["action"] == CONNECTED
        for name in names:
            await raw.attach(name)

        async def listed() -> bool:
            return bool((await both.http.get("/channels?by=id&prefix=list-")).json() == names)

        await wait_until(listed)
        page = await both.http.get("/channels?by=id&prefix=list-&limit=3")
        assert page.json() == names[:3]
        rest = await both.http.get("/" + page.links["next"]["url"].removeprefix("./"))
        assert rest.json() == names[3:]
        assert "next" not in rest.links
        (details,) = (await both.http.get(f"/channels?prefix={names[0]}")).json()
        assert (details["channelId"], details["status"]["isActive"]) == (names[0], True)
    await wait_until(lambda: none_listed(both))


async def none_listed(both: Site) -> bool:
    return bool((await both.http.get("/channels?by=id&prefix=list-")).json() == [])


async def test_enumeration_and_statistics_need_rights_on_every_channel(both: Site) -> None:
    url = both.gateways[0].url
    async with httpx.AsyncClient(base_url=url, auth=("app.some", "some")) as some:
        for path in ("/channels", "/stats"):
            answer = await some.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, 40160)
        assert (await some.get("/channels/plain:x")).status_code == 200
    assert (await both.http.get("/stats?unit=hour")).json() == []


async def test_a_client_that_asks_for_it_learns_of_changes(both: Site, unique: Names) -> None:
    channel = unique("plain")
    first, second = both.gateways
    async with client(first.url) as one, client(second.url) as two:
        attached = await joined(one, channel, params={"occupancy": "metrics.subscribers"})
        assert attached["params"] == {"occupancy": "metrics.subscribers"}
        frame = await occupancy(one, lambda metrics: metrics == {"subscribers": 1})
        event = frame["messages"][0]
        assert (event["action"], event["encoding"]) == (3, "json")
        assert frame["channelSerial"] == attached["channelSerial"]
        await joined(two, channel)
        await occupancy(one, lambda metrics: metrics == {"subscribers": 2})
        await two.send({"action": 12, "channel": channel})
        await occupancy(one, lambda metrics: metrics == {"subscribers": 1})


async def test_a_gateway_that_died_counts_no_more(both: Site, unique: Names) -> None:
    channel = unique("plain")
    doomed = await both.stack.gateway(config=CONFIG)
    async with client(both.gateways[0].url) as one, client(doomed.url) as two:
        await joined(one, channel, params={"occupancy": "metrics"})
        await joined(two, channel)
        await occupancy(one, lambda metrics: metrics["connections"] == 2)
        doomed.kill()
        await occupancy(one, lambda metrics: metrics["connections"] == 1)


async def test_without_the_right_nothing_is_reported(both: Site) -> None:
    async with client(both.gateways[0].url, key="app.some:some") as raw:
        attached = await joined(raw, "elsewhere", params={"occupancy": "metrics"})
        assert "params" not in attached
