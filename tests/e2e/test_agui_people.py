"""Several calls of one turn that wait for people, over AG-UI: nothing happens until all of them are answered."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio
from ag_ui.core import Event
from pydantic import TypeAdapter

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.processes import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

_MODELS: TypeAdapter[Any] = TypeAdapter(Event)
CONFIG = """
[[keys]]
name = "app.key"
secret = "secret"

[[namespaces]]
id = "three"
agent = "three-calls"

[[namespaces]]
id = "pay"
agent = "payer"

[[namespaces]]
id = "mirror"
agent = "mirror"

[[namespaces]]
id = "everything"
agent = "everything"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    async with Stack.opened(redis_server.url, tmp_path_factory.mktemp("site")) as stack:
        gateway = await stack.gateway(config=CONFIG)
        await stack.worker("tests.e2e.participants:worker", config=CONFIG)
        async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "secret"), timeout=20.0) as found:
            yield found


def _input(thread: str, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    run = {"threadId": thread, "runId": str(uuid.uuid4()), "protocolVersion": "1.0"}
    return {**run, "messages": list(messages), **fields}


def _ask() -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "role": "user", "content": "go"}


def _result(call: str) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "role": "tool", "toolCallId": call, "content": "one"}


async def _run(client: httpx.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = await client.post("/v1/agui", json=body)
    assert response.status_code == 200, response.text
    return _events(response)


def _events(response: httpx.Response) -> list[dict[str, Any]]:
    return [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]


async def test_agu_10_calls_of_a_frontend_are_named_in_order_and_answered_at_once(
    client: httpx.AsyncClient,
) -> None:
    thread = f"three:{uuid.uuid4()}"
    events = await _run(client, _input(thread, _ask()))
    calls = ["call-0", "call-1", "call-2"]
    assert events[-1]["outcome"] == {"type": "success", "pendingToolCallIds": calls}
    some = await client.post("/v1/agui", json=_input(thread, *map(_result, calls[:2])))
    assert some.status_code == 409
    assert "call-2" in some.json()["error"]["message"]
    again = await _run(client, _input(thread, *map(_result, calls)))
    assert again[-1]["metadata"] == events[-1]["metadata"]
    assert "call-0" in "".join(event.get("delta", "") for event in again)


async def test_agu_12_an_approval_that_is_left_out_is_none(client: httpx.AsyncClient) -> None:
    thread = f"pay:{uuid.uuid4()}"
    last = (await _run(client, _input(thread, _ask())))[-1]
    assert last["metadata"]["pendingToolCallIds"] == ["pick-1"]
    ids = {one["toolCallId"]: one["id"] for one in last["outcome"]["interrupts"]}
    ann = {"interruptId": ids["pay-ann"], "status": "resolved"}
    bob = {"interruptId": ids["pay-bob"], "status": "resolved", "payload": {"approved": False}}
    for resume, messages in (([ann], [_result("pick-1")]), ([ann, bob], []), ([], [_result("pick-1")])):
        refused = await client.post("/v1/agui", json=_input(thread, *messages, resume=resume))
        assert refused.status_code == 409, refused.text
    stored = (await client.get(f"/v1/sessions/{thread}/messages")).json()["messages"]
    states = {
        part["toolCallId"]: part["state"]
        for item in stored
        for part in item["message"]["parts"]
        if "toolCallId" in part
    }
    assert states == {
        "pay-ann": "approval-requested",
        "pay-bob": "approval-requested",
        "pick-1": "input-available",
    }
    body = _input(thread, _result("pick-1"), resume=[ann, bob])
    first, repeated = await _run(client, body), await _run(client, body)
    for events in (first, repeated):
        assert "".join(event.get("delta", "") for event in events).endswith("paid ann")
        assert [e["toolCallId"] for e in events if e["type"] == "TOOL_CALL_RESULT"] == ["pay-ann"]
        assert events[-1]["outcome"] == {"type": "success"}


async def test_agu_28_what_a_client_hands_over_reaches_the_agent_in_each_run(
    client: httpx.AsyncClient,
) -> None:
    thread = f"mirror:{uuid.uuid4()}"
    tool = {"name": "look", "description": "looks", "parameters": {"type": "object"}}
    first = _input(
        thread, _ask(), state={"page": 1}, tools=[tool], context=[{"description": "d", "value": "v"}]
    )
    events = await _run(client, first)
    assert [e["toolCallName"] for e in events if e["type"] == "TOOL_CALL_START"] == ["look"]
    second = _input(thread, _result("call-1"), state={"page": 2}, tools=[tool], forwardedProps={"mode": "x"})
    events = await _run(client, second)
    said = orjson.loads("".join(e["delta"] for e in events if e["type"] == "TEXT_MESSAGE_CONTENT"))
    assert said == {"state": {"page": 2}, "context": [], "props": {"mode": "x"}}
    # No one else is shown it.
    stored = (await client.get(f"/v1/ui/{thread}/messages")).json()
    assert [part["type"] for part in stored[0]["parts"]] == ["text"]


async def test_agu_27_usage_and_sealed_reasoning(client: httpx.AsyncClient) -> None:
    thread = f"mirror:{uuid.uuid4()}"
    events = await _run(client, _input(thread, _ask()))
    (sealed,) = [event for event in events if event["type"] == "REASONING_ENCRYPTED_VALUE"]
    (reasoning,) = [event for event in events if event["type"] == "REASONING_START"]
    expected = {"subtype": "message", "entityId": reasoning["messageId"], "encryptedValue": "sealed"}
    assert {name: sealed[name] for name in expected} == expected
    # Zero is not unknown, and what the protocol does not describe is left out.
    assert events[-1]["usage"] == [{"model": "m", "inputTokens": 3, "outputTokens": 0}]
    connected = await client.post("/v1/agui/connect", json=_input(thread))
    snapshot = next(e for e in _events(connected) if e["type"] == "MESSAGES_SNAPSHOT")
    assert [m.get("encryptedValue") for m in snapshot["messages"] if m["role"] == "reasoning"] == ["sealed"]
    old = _input(thread, _ask())
    del old["protocolVersion"]
    assert "usage" not in (await _run(client, old))[-1]


async def test_agu_2_agu_3_each_event_of_every_part_is_one_of_the_python_package(
    client: httpx.AsyncClient,
) -> None:
    thread = f"everything:{uuid.uuid4()}"
    events = await _run(client, _input(thread, _ask()))
    connected = _events(await client.post("/v1/agui/connect", json=_input(thread)))
    for event in [*events, *connected]:
        read = _MODELS.validate_python(event)
        assert read.model_dump(by_alias=True, exclude_unset=True, mode="json") == event
    # Each kind that the protocol has for what an agent of one turn can say.
    seen = {event["type"] for event in [*events, *connected]}
    assert seen >= {
        "RUN_STARTED", "RUN_FINISHED", "STEP_STARTED", "STEP_FINISHED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END", "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT", "REASONING_START",
        "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_END", "REASONING_END",
        "REASONING_ENCRYPTED_VALUE", "STATE_SNAPSHOT", "STATE_DELTA", "MESSAGES_SNAPSHOT", "CUSTOM",
    }  # fmt: skip
