"""OpenAI's Responses run, stream and are cancelled, with the published Python client: only address and key are set."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import orjson
import pytest
import pytest_asyncio
import redis
from openai import OpenAI

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.e2e.openai_models import valid_event, valid_response
from tests.e2e.responses_site import KEY, Site, numbers, open_site, raw_events, text_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with open_site(redis_server.url, tmp_path_factory.mktemp("site")) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def client(site: Site) -> AsyncIterator[Any]:
    async with site.client() as made:
        yield made


async def ended(client: Any, response: Any) -> Any:
    """The loop of OpenAI's guide on background mode."""
    while response.status in {"queued", "in_progress"}:
        await asyncio.sleep(0.05)
        response = await client.responses.retrieve(response.id)
    return response


async def test_rsp_1_a_background_response_is_polled_until_it_is_complete(client: Any) -> None:
    response = await client.responses.create(
        input="script: tokens=30 rate=100", model="assistant", background=True
    )
    assert response.status in {"queued", "in_progress"}
    response = await ended(client, response)
    assert response.status == "completed"
    assert response.output_text == numbers(30)
    valid_response(orjson.loads(response.to_json()))


async def test_a_response_that_is_waited_for(client: Any) -> None:
    response = await client.responses.create(input="script: reasoning=2 tokens=5", model="assistant")
    assert response.status == "completed"
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output_text == numbers(5)
    valid_response(orjson.loads(response.to_json()))


async def test_rsp_2_events_come_in_order_and_the_final_response_is_the_stored_one(
    client: Any, site: Site
) -> None:
    async with client.responses.stream(
        input="script: reasoning=3 tokens=20 tool=server", model="assistant"
    ) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert text_of(events) == numbers(20)
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    sequence = [event.sequence_number for event in events]
    assert sequence == sorted(set(sequence))
    stored = await client.responses.retrieve(final.id)
    async with site.http() as http:
        raw = await raw_events(http, final.id)
    for event in raw:
        valid_event(event)
    assert raw[-1]["response"] == orjson.loads((await _raw(site, final.id)).content)
    assert final.output_text == stored.output_text == numbers(20)
    assert [item.type for item in stored.output] == [item.type for item in final.output]


async def _raw(site: Site, response_id: str) -> httpx.Response:
    async with site.http() as http:
        return await http.get(f"/v1/responses/{response_id}")


async def test_rsp_3_4_5_a_stream_continues_after_every_event_on_every_gateway(site: Site) -> None:
    async with site.client() as client, site.http(0) as here, site.http(1) as there:
        live = [
            event.to_dict()
            async for event in await client.responses.create(
                input="script: reasoning=2 tokens=12 rate=60 tool=server", model="assistant", stream=True
            )
        ]
        response_id = live[0]["response"]["id"]
        whole = await raw_events(here, response_id)
        assert whole == await raw_events(there, response_id)
        by_number = {event["sequence_number"]: event for event in whole}
        for event in live:
            if "delta" not in event:
                same = dict(by_number[event["sequence_number"]])
                assert {**same, "response": None} == {**event, "response": None}
        for at, event in enumerate(live):
            cursor = event["sequence_number"]
            rest = await raw_events(there if at % 2 else here, response_id, starting_after=cursor)
            assert reduced([*live[: at + 1], *rest]) == reduced(live)
            helped = [one for one in whole if one["sequence_number"] > cursor]
            assert reduced([*live[: at + 1], *helped]) == reduced(live)


def reduced(events: list[dict[str, Any]]) -> list[Any]:
    """What events amount to, whatever the deltas were cut into."""
    found: list[Any] = []
    for event in events:
        kind = event["type"]
        if "delta" in event:
            key = kind, event["item_id"]
            if found and found[-1][0] == key:
                found[-1] = key, found[-1][1] + event["delta"]
            else:
                found.append((key, event["delta"]))
        else:
            found.append((kind, {**event, "response": (event.get("response") or {}).get("status")}))
    return found


async def test_rsp_2_every_kind_of_part_is_an_item_or_left_out(client: Any, site: Site) -> None:
    name = f"everything:{uuid.uuid4()}"
    stream = await client.responses.create(input="go", conversation=name, stream=True)
    events = [event.to_dict() for event in await _read(stream)]
    for event in events:
        valid_event(event)
    output = events[-1]["response"]["output"]
    assert [(item["type"], item.get("call_id")) for item in output] == [
        ("reasoning", None),
        ("message", None),
        ("function_call", "streamed"),
        ("function_call_output", "streamed"),
        ("function_call", "failing"),
        ("function_call_output", "failing"),
        ("function_call", "garbled"),
        ("function_call_output", "garbled"),
        ("message", None),
        ("function_call", "pay-1"),
        ("function_call", "pick-1"),
        ("mcp_approval_request", None),
    ]
    assert events[-1]["response"]["usage"]["input_tokens"] == 3
    async with site.http(1) as http:
        again = await raw_events(http, events[0]["response"]["id"])
    assert reduced(again) == reduced(events)


async def test_rsp_4_the_helper_re_enters_a_stream(client: Any) -> None:
    seen: list[Any] = []
    async with client.responses.stream(input="script: tokens=40 rate=80", model="assistant") as stream:
        async for event in stream:
            seen.append(event)
            if len(text_of(seen)) > 20:
                break
    response_id, cursor = seen[0].response.id, seen[-1].sequence_number
    for _ in range(2):
        rest: list[Any] = []
        async with client.responses.stream(response_id=response_id, starting_after=cursor) as stream:
            rest = [event async for event in stream]
            final = await stream.get_final_response()
        assert text_of(seen) + text_of(rest) == numbers(40)
        assert final.output_text == numbers(40)


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ("script: tokens=2000 rate=50", "response.output_text.delta"),
        ("script: reasoning=2000 rate=50", "response.reasoning_summary_text.delta"),
    ],
)
async def test_rsp_6_a_cancel_is_final_for_every_reader(site: Site, script: str, seen: str) -> None:
    async with site.client() as client, site.client(1) as other:
        stream = await client.responses.create(input=script, model="assistant", stream=True)
        first = await anext(aiter(stream))
        response_id = first.response.id
        readers = [
            asyncio.create_task(_read(await one.responses.retrieve(response_id, stream=True)))
            for one in (client, other)
        ]
        events = [first]
        async for event in stream:
            events.append(event)
            if event.type == seen and len(events) > 8:
                break
        cancelled = await other.responses.cancel(response_id)
        assert cancelled.status == "cancelled"
        assert cancelled.output[-1].status == "incomplete"
        rest = [event async for event in stream]
        for reported in ([*events, *rest], *(await asyncio.gather(*readers))):
            assert reported[-1].type == "response.incomplete"
            assert reported[-1].response.status == "cancelled"
            assert reported[-1].response.output_text == cancelled.output_text
            assert text_of(reported) == cancelled.output_text
        assert (await client.responses.cancel(response_id)).to_dict() == cancelled.to_dict()
        assert (await client.responses.retrieve(response_id)).to_dict() == cancelled.to_dict()


async def test_rsp_6_a_turn_that_waits_for_answers_is_cancelled(client: Any, site: Site) -> None:
    asked = await client.responses.create(input="script: tool=client tokens=5", model="assistant")
    assert asked.status == "completed"
    cancelled = await client.responses.cancel(asked.id)
    assert cancelled.status == "cancelled"
    assert [item.type for item in cancelled.output] == [item.type for item in asked.output]
    assert (await client.responses.retrieve(asked.id)).to_dict() == cancelled.to_dict()
    last = (await _read(await client.responses.retrieve(asked.id, stream=True)))[-1]
    assert (last.type, last.response.status) == ("response.incomplete", "cancelled")
    assert (await client.responses.cancel(asked.id)).to_dict() == cancelled.to_dict()
    (call,) = [item for item in asked.output if item.type == "function_call"]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "late"}
    with pytest.raises(openai.BadRequestError, match="waits for no answers"):
        await client.responses.create(previous_response_id=asked.id, input=[output])


async def test_rsp_6_a_cancel_is_written_before_the_session_is_read(
    site: Site, redis_server: EmbeddedRedis
) -> None:
    """By a gateway that has not read it yet: each millisecond costs tokens."""
    async with site.client() as client, site.client(1) as other:
        running = await client.responses.create(input="script: tokens=900 rate=50", background=True)
        with redis.Redis.from_url(redis_server.url) as seeing, seeing.monitor() as monitor:
            assert (await other.responses.cancel(running.id)).status == "cancelled"
            seeing.echo(b"the end")
            commands = list(iter(lambda: str(monitor.next_command()["command"]), "ECHO the end"))
    session = running.conversation.id
    cancel = next(at for at, command in enumerate(commands) if "ai-cancel" in command)
    read = next(at for at, command in enumerate(commands) if "SUBSCRIBE" in command and session in command)
    assert cancel < read


async def test_rsp_6_what_was_answered_stays_completed(client: Any) -> None:
    asked = await client.responses.create(input="script: tool=client tokens=900 rate=100", model="assistant")
    (call,) = [item for item in asked.output if item.type == "function_call"]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": '{"found": 1}'}
    going = await client.responses.create(previous_response_id=asked.id, input=[output], background=True)
    assert (await client.responses.cancel(going.id)).status == "cancelled"
    assert (await client.responses.retrieve(asked.id)).to_dict() == asked.to_dict()
    assert (await client.responses.cancel(asked.id)).to_dict() == asked.to_dict()


async def _read(stream: Any) -> list[Any]:
    return [event async for event in stream]


async def test_rsp_7_cancels_of_what_is_over_or_unknown(client: Any) -> None:
    done = await client.responses.create(input="script: tokens=3", model="assistant")
    assert (await client.responses.cancel(done.id)).to_dict() == done.to_dict()
    for wrong in ("resp_unknown", done.id[:-4], f"{done.id}x", "resp_"):
        with pytest.raises(openai.NotFoundError):
            await client.responses.cancel(wrong)


async def test_rsp_8_a_failed_turn_is_a_failed_response(client: Any) -> None:
    stream = await client.responses.create(
        input="script: tokens=9 fail_at=3 always=1", model="assistant", stream=True
    )
    events = await _read(stream)
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"
    for event in events:
        valid_event(event.to_dict())
    assert (await client.responses.retrieve(events[0].response.id)).status == "failed"


async def test_rsp_13_closing_the_stream_cancels_nothing(client: Any) -> None:
    stream = await client.responses.create(input="script: tokens=40 rate=100", model="assistant", stream=True)
    first = await anext(aiter(stream))
    await stream.close()
    assert (await ended(client, await client.responses.retrieve(first.response.id))).output_text == numbers(
        40
    )


async def test_a_sync_client_reads_and_cancels(site: Site) -> None:
    def talk() -> None:
        made: Any
        with OpenAI(base_url=f"{site.gateways[0].url}/v1", api_key=KEY) as made:
            with made.responses.stream(input="script: tokens=9", model="assistant") as stream:
                text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
                assert text == stream.get_final_response().output_text == numbers(9)
            running = made.responses.create(input="script: tokens=900 rate=50", background=True)
            assert made.responses.cancel(running.id).status == "cancelled"

    await asyncio.to_thread(talk)


async def test_a_long_text_of_all_kinds_of_characters_is_exact_in_every_cut(client: Any, site: Site) -> None:
    text = "é🙂\u202e漢字" * 900
    done = await client.responses.create(input=f"script: say={text}", model="assistant")
    assert done.output_text == text
    async with site.http() as http:
        whole = await raw_events(http, done.id)
        deltas = [event for event in whole if "delta" in event]
        assert "".join(event["delta"] for event in deltas) == text
        for cursor in (0, 3, 4, 17, len(text), whole[-2]["sequence_number"]):
            rest = await raw_events(http, done.id, starting_after=cursor)
            had = "".join(event["delta"] for event in deltas if event["sequence_number"] <= cursor)
            assert had + "".join(event.get("delta", "") for event in rest) == text
        beyond = await raw_events(http, done.id, starting_after=10**9)
        assert beyond == []
        for wrong in ("-1", "x", "1e3", "9" * 40):
            answer = await http.get(
                f"/v1/responses/{done.id}", params={"stream": "true", "starting_after": wrong}
            )
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "starting_after"
        assert (await http.get(f"/v1/responses/{done.id}?starting_after=1")).status_code == 400
