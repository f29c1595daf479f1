"""Requests to OpenAI's Responses: answers to calls, branches, conversations, and what is refused."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import orjson
import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.documentation.blocks import block
from tests.e2e.openai_models import valid_event, valid_items, valid_response
from tests.e2e.responses_site import Site, numbers, open_site, raw_events

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with open_site(redis_server.url, tmp_path_factory.mktemp("site")) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def client(site: Site) -> AsyncIterator[Any]:
    async with site.client() as made:
        yield made


async def test_rsp_9_a_function_call_is_answered_and_its_turn_goes_on(client: Any, site: Site) -> None:
    asked = await client.responses.create(input="script: tool=client tokens=5", model="assistant")
    assert asked.status == "completed"
    (call,) = [item for item in asked.output if item.type == "function_call"]
    assert orjson.loads(call.arguments) == {"query": "the scripted question"}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": '{"found": 1}'}
    done = await client.responses.create(previous_response_id=asked.id, input=[output])
    assert done.output_text == numbers(5)
    assert done.previous_response_id == asked.id
    assert done.id != asked.id
    assert (await client.responses.retrieve(asked.id)).to_dict() == asked.to_dict()
    given = await client.responses.input_items.list(done.id)
    assert [item.output for item in given.data] == ['{"found": 1}']
    for again in (output, {**output, "output": "another"}):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(previous_response_id=asked.id, input=[again])
        assert caught.value.param == "input"
    async with site.http() as http:
        for one in (asked.id, done.id):
            for event in await raw_events(http, one):
                valid_event(event)


async def test_several_calls_are_answered_at_once(client: Any) -> None:
    asked = await client.responses.create(input="go", model="three-calls")
    calls = [item for item in asked.output if item.type == "function_call"]
    assert len(calls) == 3
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "one"} for call in calls]
    with pytest.raises(openai.BadRequestError, match="call-2"):
        await client.responses.create(previous_response_id=asked.id, input=outputs[:2])
    done = await client.responses.create(previous_response_id=asked.id, input=outputs)
    assert done.status == "completed"
    assert "call-0" in done.output_text


async def test_approvals_are_requests_of_an_mcp_server(client: Any) -> None:
    asked = await client.responses.create(input="script: tool=server approve=1 tokens=4", model="assistant")
    (wanted,) = [item for item in asked.output if item.type == "mcp_approval_request"]
    valid_response(asked.to_dict())
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(
            previous_response_id=asked.id,
            input=[{"type": "function_call_output", "call_id": "lookup", "output": "x"}],
        )
    answer = {"type": "mcp_approval_response", "approval_request_id": wanted.id, "approve": True}
    done = await client.responses.create(previous_response_id=asked.id, input=[answer])
    assert done.output_text == numbers(4)
    assert "function_call_output" in [item.type for item in done.output]
    (given,) = (await client.responses.input_items.list(done.id)).data
    assert (given.approval_request_id, given.approve) == (wanted.id, True)
    valid_response(done.to_dict())


async def test_rsp_10_an_older_response_is_continued_as_a_branch(client: Any, site: Site) -> None:
    first = await client.responses.create(input="script: say=one", model="assistant")
    conversation = first.conversation.id
    second = await client.responses.create(input="script: say=two", previous_response_id=first.id)
    branch = await client.responses.create(input="script: say=other", previous_response_id=first.id)
    assert second.previous_response_id == branch.previous_response_id == first.id
    assert second.conversation.id == branch.conversation.id == conversation
    async with site.http() as http:
        shown = (await http.get(f"/v1/sessions/{conversation}/messages")).json()["messages"]
    texts = ["".join(p.get("text", "") for p in m["message"]["parts"]) for m in shown]
    assert texts == ["script: say=one", "one", "script: say=other", "other"]
    appended = await client.responses.create(input="script: say=more", conversation=conversation)
    assert appended.previous_response_id == branch.id
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(input="x", conversation=conversation, previous_response_id=first.id)


async def test_rsp_12_errors_have_the_form_of_openai(site: Site) -> None:
    asked: list[str] = []

    async def count(request: httpx.Request) -> None:
        asked.append(request.url.path)

    http = httpx.AsyncClient(event_hooks={"request": [count]})
    async with site.client(http_client=http) as client, site.client(key="app.key:wrong") as stranger:
        cases: list[tuple[type[openai.APIStatusError], str | None, str | None, dict[str, Any]]] = [
            (openai.BadRequestError, "store", None, {"input": "x", "store": False}),
            (openai.BadRequestError, "input", None, {}),
            (
                openai.BadRequestError,
                "input[0].role",
                None,
                {"input": [{"role": "assistant", "content": "x"}]},
            ),
            (openai.NotFoundError, "model", "model_not_found", {"input": "x", "model": "gpt-none"}),
            (
                openai.BadRequestError,
                "previous_response_id",
                "previous_response_not_found",
                {"input": "x", "previous_response_id": "resp_none"},
            ),
        ]
        for kind, param, code, request in cases:
            asked.clear()
            with pytest.raises(kind) as caught:
                await client.responses.create(**request)
            assert caught.value.type == "invalid_request_error"
            assert caught.value.param == param
            assert code is None or caught.value.code == code
            assert len(asked) == 1, request
        with pytest.raises(openai.AuthenticationError) as unknown:
            await stranger.responses.create(input="x")
        assert unknown.value.code == "invalid_api_key"
    async with site.client(key="app.reader:secret") as reader:
        with pytest.raises(openai.PermissionDeniedError):
            await reader.responses.create(input="x", model="assistant")


async def test_other_applications_have_nothing_of_it(site: Site, client: Any) -> None:
    secret = await client.responses.create(input="script: say=secret", model="assistant")
    async with site.client(key="other.key:secret") as other:
        for attempt in (
            other.responses.retrieve(secret.id),
            other.responses.cancel(secret.id),
            other.responses.input_items.list(secret.id),
            other.responses.create(input="x", previous_response_id=secret.id),
            other.responses.create(input="x", conversation=secret.conversation.id),
        ):
            with pytest.raises(openai.PermissionDeniedError):
                await attempt


async def test_rsp_11_a_repeated_request_is_the_same_turn(client: Any) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body: dict[str, Any] = {"input": "script: say=once", "model": "assistant"}
    first = await client.responses.create(**body, extra_headers=key)
    assert (await client.responses.create(**body, extra_headers=key)).id == first.id
    again = {"x-stainless-retry-count": "1"}
    sent = await client.responses.create(**body)
    assert (await client.responses.create(**body, extra_headers=again)).id == sent.id
    assert (await client.responses.create(**body)).id != sent.id
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(input="script: say=twice", model="assistant", extra_headers=key)


async def test_what_a_request_says_is_given_to_the_agent_and_repeated(client: Any, site: Site) -> None:
    tool = {"type": "function", "name": "pick", "parameters": {"type": "object"}, "strict": False}
    response = await client.responses.create(
        input=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": "script: say=ok"}],
        model="assistant",
        metadata={"topic": "demo"},
        temperature=0.5,
        tools=[tool],
    )
    assert response.metadata == {"topic": "demo"}
    assert (response.temperature, response.instructions) == (0.5, "be brief")
    assert response.to_dict() == (await client.responses.retrieve(response.id)).to_dict()
    valid_response(response.to_dict())
    items = (await client.responses.input_items.list(response.id)).to_dict()
    valid_items(items)
    assert [item["content"] for item in items["data"]] == [[{"type": "input_text", "text": "script: say=ok"}]]
    asked = await client.responses.create(input="hi", model="mirror", tools=[tool])
    (call,) = [item for item in asked.output if item.type == "function_call"]
    assert call.name == "pick"
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "one"}
    said = await client.responses.create(
        previous_response_id=asked.id, input=[output], instructions="be brief"
    )
    assert "be brief" in said.output_text
    assert (said.instructions, asked.instructions) == ("be brief", None)
    assert (said.usage.input_tokens, said.usage.total_tokens) == (3, 3)
    valid_response(said.to_dict())
    with pytest.raises(openai.APIStatusError) as caught:
        await client.responses.delete(response.id)
    assert caught.value.status_code == 405


async def test_the_example_of_the_guide_prints_an_answer(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    code = block("docs/front-ends.md", "from openai import OpenAI").text
    code = code.replace("http://127.0.0.1:8080", site.gateways[0].url)
    await asyncio.to_thread(exec, compile(code, "docs/front-ends.md", "exec"), {})
    assert capsys.readouterr().out.startswith("You wrote: “hello”.")


async def test_conversations_are_sessions(client: Any) -> None:
    made = await client.conversations.create(metadata={"topic": "demo"})
    assert made.object == "conversation"
    assert made.metadata == {"topic": "demo"}
    assert (await client.conversations.retrieve(made.id)).to_dict() == made.to_dict()
    first = await client.responses.create(input="script: say=one reasoning=1", conversation=made.id)
    asked = await client.responses.create(input="script: tool=client tokens=2", conversation={"id": made.id})
    call = next(item for item in asked.output if item.type == "function_call")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "found"}
    done = await client.responses.create(previous_response_id=asked.id, input=[output])
    assert first.conversation.id == asked.conversation.id == done.conversation.id == made.id
    items = [item async for item in client.conversations.items.list(made.id, order="asc", limit=2)]
    kinds = ["message", "message", "message", "function_call", "function_call_output", "message"]
    assert [item.type for item in items] == kinds
    assert [item.id for item in items if item.type == "function_call"] == [call.id]
    newest = [item.id async for item in client.conversations.items.list(made.id)]
    assert newest == [item.id for item in items][::-1]
    one = await client.conversations.items.retrieve(items[1].id, conversation_id=made.id)
    assert one.to_dict() == items[1].to_dict()
    changed = await client.conversations.update(made.id, metadata={"topic": "other"})
    assert changed.metadata == {"topic": "other"}
    assert changed.created_at == made.created_at
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve("conv_none")
    with pytest.raises(openai.APIStatusError) as caught:
        await client.conversations.delete(made.id)
    assert caught.value.status_code == 405


_DEEP: Any = "x"


for _ in range(300):
    _DEEP = [_DEEP]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b'{"input": "\xff"}', b'{"input": "\\ud800"}', b'{"input": 1}',
        {}, {"input": None}, {"input": []}, {"input": [1]}, {"input": [[]]}, {"input": [{"role": "user"}]},
        {"input": [{"role": "user", "content": [{}]}]}, {"input": [{"type": "function_call", "call_id": "x"}]},
        {"input": [{"role": {}, "content": "x"}]}, {"input": [{"type": ["x"], "content": "x"}]},
        {"input": [{"role": "user", "content": "x"}] * 201}, {"input": "x", "store": False},
        {"input": "x", "conversation": {}}, {"input": "x", "conversation": {"id": 1}}, {"input": "x", "conversation": "a\nb"},
        {"input": "x", "conversation": "a", "previous_response_id": "b"},
        {"input": "x", "previous_response_id": "resp_" + "A" * 9000},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": {}}]},
        {"input": [{"type": "mcp_approval_response", "approve": "yes", "approval_request_id": "x"}]},
        {"input": "x", "metadata": {"deep": _DEEP}}, {"input": "x", "instructions": "y" * 200_000}, {"input": "z" * 200_000},
    ],
)  # fmt: skip
async def test_what_cannot_be_served_is_refused_as_openai_does(site: Site, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    async with site.http() as http:
        answer = await http.post(
            "/v1/responses", content=content, headers={"content-type": "application/json"}
        )
    assert answer.status_code in (400, 404, 413), answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert answer.headers["x-should-retry"] == "false"


async def test_unknown_fields_have_no_effect(client: Any) -> None:
    response = await client.responses.create(
        input="script: say=ok", model="assistant", extra_body={"unheard": {"of": [1]}, "include": ["x"]}
    )
    assert response.output_text == "ok"


async def test_pages_of_browsers_may_ask_and_the_description_has_the_paths(site: Site) -> None:
    asked = "authorization,content-type,idempotency-key,x-stainless-lang,x-stainless-retry-count,x-stainless-timeout"
    headers = {"origin": "https://page.example", "access-control-request-headers": asked}
    async with site.http() as http:
        answer = await http.options(
            "/v1/responses", headers={**headers, "access-control-request-method": "POST"}
        )
        allowed = answer.headers["access-control-allow-headers"].split(", ")
        assert set(asked.split(",")) <= set(allowed)
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        paths = (await http.get("/openapi.json")).json()["paths"]
    assert {"/v1/responses", "/v1/responses/{response_id}/cancel", "/v1/conversations/{session}"} <= set(
        paths
    )
