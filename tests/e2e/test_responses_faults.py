"""Responses while connections, gateways and workers are lost, turns are stopped, and readers are of all kinds."""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import orjson
import pytest
import pytest_asyncio

from selfhost_transport import ClientTransport
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.e2e.conftest import Build
from tests.e2e.provider import Provider
from tests.e2e.responses_site import KEY, Site, numbers, open_site, raw_events, text_of
from tests.e2e.stage import CREW
from tests.e2e.stage import KEY as STAGE_KEY
from tests.processes import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
STOPS = 100 if LONG else 12
SILENT_S = 660 if LONG else 0
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
# Two of the scripted model.
WORKERS = ("", "")
ENDS = {"response.completed", "response.incomplete", "response.failed"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with open_site(redis_server.url, tmp_path_factory.mktemp("site"), CONFIG, WORKERS) as opened:
        yield opened


class Silence:
    """A stream of a turn that says nothing, read as it comes, from the module's beginning."""

    def __init__(self, site: Site, response_id: str) -> None:
        self.site = site
        self.response_id = response_id
        self.bytes = b""
        self.reading = asyncio.create_task(self._read(site.gateways[0].url))

    async def _read(self, url: str) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        # The clients give up after a silent read timeout; a comment is enough.
        async with (
            httpx.AsyncClient(headers=headers, timeout=20.0) as http,
            http.stream("GET", f"{url}/v1/responses/{self.response_id}?stream=true") as answer,
        ):
            async for block in answer.aiter_bytes():
                self.bytes += block


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def silence(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Silence]:
    """On workers of its own: those of the site are killed."""
    async with open_site(redis_server.url, tmp_path_factory.mktemp("silence"), CONFIG, WORKERS) as apart:
        async with apart.client() as client:
            started = await client.responses.create(input="script: tokens=9 hang_at=3", background=True)
        silent = Silence(apart, started.id)
        yield silent
        silent.reading.cancel()
        await asyncio.gather(silent.reading, return_exceptions=True)


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


async def test_rsp_6_a_cancel_hangs_up_on_the_provider(build: Build) -> None:
    stage = await build(gateways=1, workers=0)
    await stage.add_worker(CREW)
    took: list[float] = []
    client: Any
    async with openai.AsyncOpenAI(base_url=f"{stage.gateways[0].url}/v1", api_key=STAGE_KEY) as client:
        for number in range(STOPS):
            async with Provider(100_000) as provider:
                stream = await client.responses.create(
                    input=f"provider {provider.url}", conversation=stage.session("crew"), stream=True
                )
                events: list[Any] = []
                if number % 2:
                    # Before the stop the reader is cut once, and comes again.
                    events.append(await anext(aiter(stream)))
                    await stream.close()
                    stream = await client.responses.retrieve(
                        events[0].response.id, stream=True, starting_after=0
                    )
                async for event in stream:
                    events.append(event)
                    if event.type == "response.output_text.delta":
                        break
                began = time.monotonic()
                await client.responses.cancel(events[0].response.id)
                async with asyncio.timeout(5):
                    took.append(await provider.disconnected - began)
                assert [event async for event in stream][-1].response.status == "cancelled"
    took.sort()
    print(
        f"provider closed after the cancel was sent, ms: p50 {took[len(took) // 2] * 1e3:.1f} max {took[-1] * 1e3:.1f}"
    )
    assert took[len(took) // 2] < 0.25


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


async def test_a_slow_reader_gets_all_of_it(site: Site) -> None:
    async with site.client() as client, site.http() as http:
        started = await client.responses.create(input="script: tokens=30000", background=True)
        found = b""
        async with http.stream("GET", f"/v1/responses/{started.id}?stream=true&starting_after=0") as answer:
            async for block in answer.aiter_raw():
                found += block
                if len(found) < 200_000:
                    await asyncio.sleep(0.05)
        events = [orjson.loads(line[6:]) for line in found.split(b"\n") if line.startswith(b"data: ")]
        assert "".join(event.get("delta", "") for event in events) == numbers(30000)
        assert events[-1]["response"] == (await client.responses.retrieve(started.id)).to_dict()


async def test_credentials_that_expire_end_the_stream_with_an_error(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.gateways[0].url, auth=("app.key", "secret")) as http:
        asked = {
            "ttl": 2000,
            "capability": '{"*":["*"]}',
            "keyName": "app.key",
            "timestamp": time.time_ns() // 10**6,
        }
        token = (await http.post("/keys/app.key/requestToken", json=asked)).json()["token"]
    async with site.client(key=token, max_retries=0) as client:
        stream = await client.responses.create(input="script: tokens=900 rate=50", stream=True)
        first = await anext(aiter(stream))
        with pytest.raises(openai.APIError, match="expired"):
            async for _ in stream:
                pass
        with pytest.raises(openai.AuthenticationError):
            await client.responses.retrieve("resp_x")
    async with site.client() as client:
        assert (await client.responses.cancel(first.response.id)).status == "cancelled"


@pytest.mark.timeout(60 + SILENT_S)
async def test_rsp_15_a_silent_stream_is_kept_with_comments(silence: Silence) -> None:
    """OpenAI's client waits less than that between two reads; in the long form all of eleven minutes."""
    async with silence.site.client(1, timeout=20.0, max_retries=0) as client:
        stream = await client.responses.retrieve(silence.response_id, stream=True)
        following = asyncio.create_task(_events(stream))
        comments = max(1, int(SILENT_S / 16))
        await wait_until(
            lambda: silence.reading.done() or silence.bytes.count(b"\n: keep-alive\n") >= comments,
            17 + SILENT_S,
            f"{comments} comments",
        )
        assert not silence.reading.done(), f"ended after {silence.bytes[-300:]!r}"
        assert not following.done()
        assert b"\nid:" not in silence.bytes
        stopped = await client.responses.cancel(silence.response_id)
        _, events = await asyncio.gather(silence.reading, following)
    last = orjson.loads(silence.bytes.rstrip().rpartition(b"data: ")[2])
    assert last["response"] == stopped.to_dict() == events[-1].response.to_dict()
    assert stopped.output_text == text_of(events) == numbers(3)


async def _events(stream: Any) -> list[Any]:
    return [event async for event in stream]
