"""Responses while connections, gateways and workers are lost, turns are stopped, and readers are of all kinds."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from selfhost_transport import ClientTransport
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.e2e.test_responses import KEY, Site, numbers, raw_events, text_of
from tests.processes import Stack, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

STOPS = 100 if os.environ.get("SELFHOST_TRANSPORT_LONG") == "1" else 12
CONFIG = """
[[keys]]
name = "app.key"
secret = "secret"

[[namespaces]]
id = "*"
agent = "assistant"

[[namespaces]]
id = "continue"
agent = "assistant"
on_crash = "continue"

[[namespaces]]
id = "queue"
agent = "assistant"
policy = "queue"

[[namespaces]]
id = "interrupt"
agent = "assistant"
policy = "interrupt"

[worker]
lease_ms = 600
"""
ENDS = {"response.completed", "response.incomplete", "response.failed"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    stack = Stack(redis_server.url, f"t{uuid.uuid4().hex[:12]}", tmp_path_factory.mktemp("site"))
    try:
        gateways = [await stack.gateway(config=CONFIG) for _ in range(2)]
        for _ in range(2):
            await stack.worker(config=CONFIG)
        yield Site(stack, gateways)
    finally:
        await stack.close()


async def follow(site: Site, response_id: str, seen: list[Any], gateway: int) -> None:
    """Read on to the end, however often the connection is lost."""
    async with site.client(gateway) as client:
        while not seen or seen[-1].type not in ENDS:
            after = {"starting_after": seen[-1].sequence_number} if seen else {}
            stream = await client.responses.retrieve(response_id, stream=True, **after)
            limit = len(seen) + random.randint(1, 30)
            async for event in stream:
                seen.append(event)
                if len(seen) > limit:
                    await stream.close()
                    break


async def test_rsp_6_stops_at_random_moments_are_final(site: Site) -> None:
    async with site.client() as client, site.http() as http:
        for number in range(STOPS):
            script = random.choice(
                ["tokens=900 rate=300", "reasoning=900 rate=300", "tokens=900 rate=200 tool=server"]
            )
            started = await client.responses.create(input=f"script: {script}", background=True)
            readers: list[list[Any]] = [[], []]
            reading = [
                asyncio.create_task(follow(site, started.id, seen, at)) for at, seen in enumerate(readers)
            ]
            await asyncio.sleep(random.random() * 0.4)
            async with site.client(number % 2) as other:
                stopped = await other.responses.cancel(started.id)
            assert stopped.status == "cancelled"
            await asyncio.gather(*reading)
            for seen in readers:
                assert seen[-1].response.to_dict() == stopped.to_dict()
                assert text_of(seen) == stopped.output_text
            assert (await client.responses.retrieve(started.id)).to_dict() == stopped.to_dict()
            session = f"/v1/sessions/{stopped.conversation.id}/messages"
            shown = (await http.get(session)).json()["messages"]
            said = "".join(
                part.get("text", "")
                for one in shown
                if one["message"]["role"] == "assistant"
                for part in one["message"]["parts"]
                if part["type"] == "text"
            )
            assert said == stopped.output_text


@pytest.mark.parametrize("namespace", ["restart", "continue"])
async def test_rsp_14_a_killed_worker_leaves_one_whole_answer(site: Site, namespace: str) -> None:
    async with site.client() as client, site.http(1) as http:
        await site.stack.worker(config=CONFIG)
        stream = await client.responses.create(
            input="script: tokens=30 rate=100 crash_at=12",
            stream=True,
            conversation=f"{namespace}:{uuid.uuid4()}",
        )
        events = [event async for event in stream]
        assert events[-1].type == "response.completed"
        assert text_of(events) == events[-1].response.output_text == numbers(30)
        again = await raw_events(http, events[0].response.id)
        assert again[-1]["response"] == events[-1].response.to_dict()
        assert again[-1]["sequence_number"] == events[-1].sequence_number


@pytest.mark.parametrize("how", ["kill", "terminate"])
async def test_rsp_5_a_lost_gateway_is_continued_at_another(site: Site, how: str) -> None:
    third = await site.stack.gateway(config=CONFIG)
    made: Any = openai.AsyncOpenAI(base_url=f"{third.url}/v1", api_key=KEY, max_retries=0)
    async with made:
        stream = await made.responses.create(input="script: tokens=60 rate=60", stream=True)
        events: list[Any] = []
        with pytest.raises((openai.APIError, httpx.HTTPError)):
            async for event in stream:
                events.append(event)
                if len(events) == 12:
                    getattr(third, how)()
    assert events[-1].type not in ENDS
    await follow(site, events[0].response.id, events, 1)
    assert text_of(events) == events[-1].response.output_text == numbers(60)


async def test_a_response_is_a_turn_for_the_python_sdk_and_the_other_way_round(site: Site) -> None:
    name = f"chat:{uuid.uuid4()}"
    url = site.gateways[1].url.replace("http", "ws")
    async with (
        ClientTransport.connect(url, key=KEY, client_id="ann", channel=name) as transport,
        site.client() as client,
    ):
        running = await client.responses.create(
            input="script: tokens=900 rate=50", conversation=name, background=True
        )
        await wait_until(lambda: transport.active_turns, what="the turn is seen")
        (turn_id,) = {turn for turns in transport.active_turns.values() for turn in turns} or {""}
        await transport.cancel(turn_id=turn_id)
        assert (await client.responses.retrieve(running.id)).status == "cancelled"


async def test_a_queued_response_waits_and_is_cancelled_before_it_begins(site: Site) -> None:
    name = f"queue:{uuid.uuid4()}"
    async with site.client() as client, site.http() as http:
        first = await client.responses.create(
            input="script: tokens=900 rate=50", conversation=name, background=True
        )
        second = await client.responses.create(input="script: tokens=3", conversation=name, background=True)
        assert second.status == "queued"
        reading = asyncio.create_task(raw_events(http, second.id))
        assert (await client.responses.cancel(second.id)).status == "cancelled"
        events = await reading
        assert [event["type"] for event in events] == [
            "response.created", "response.in_progress", "response.incomplete",
        ]  # fmt: skip
        assert [event["sequence_number"] for event in events] == [0, 1, 2]
        assert await raw_events(http, second.id) == events
        assert (await client.responses.retrieve(first.id)).status == "in_progress"
        await client.responses.cancel(first.id)


async def test_a_new_response_interrupts_where_the_namespace_says_so(site: Site) -> None:
    name = f"interrupt:{uuid.uuid4()}"
    key = {"x-ably-clientid": "YW5u"}
    async with site.client(default_headers=key) as client:
        first = await client.responses.create(
            input="script: tokens=900 rate=50", conversation=name, background=True
        )
        second = await client.responses.create(input="script: tokens=3", previous_response_id=first.id)
        assert second.status == "completed"
        assert (await client.responses.retrieve(first.id)).status == "cancelled"


async def test_follow_ups_at_the_same_time_are_all_answered(site: Site) -> None:
    async with site.client() as client:
        first = await client.responses.create(input="script: say=one")
        made = await asyncio.gather(
            *(
                client.responses.create(input=f"script: say={n}", previous_response_id=first.id)
                for n in range(6)
            )
        )
        assert [one.output_text for one in made] == [str(n) for n in range(6)]
        assert {one.previous_response_id for one in made} == {first.id}
        assert len({one.id for one in made}) == 6
