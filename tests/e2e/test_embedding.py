"""The example of docs/embedding.md, run as it stands: gateway and worker inside another's application (SDK-6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from openai import AsyncOpenAI, PermissionDeniedError
from websockets.asyncio.client import connect

from selfhost_transport import ClientTransport
from selfhost_transport.errors import TransportError
from tests.e2e.applications import serve
from tests.e2e.embedding_example import example
from tests.processes import Stack


@pytest.fixture
def served_by() -> str:
    """uvicorn's own websocket protocol, or that of the gateway."""
    return "auto"


@pytest.fixture
async def address(stack: Stack, served_by: str) -> AsyncIterator[str]:
    """`127.0.0.1:PORT` of the application."""
    proc, port = await serve(stack, example(), "/hello", "--ws", served_by)
    yield f"127.0.0.1:{port}"
    proc.terminate()
    await proc.wait()
    assert "Application shutdown complete" in proc.log
    assert "Traceback" not in proc.log


@pytest.mark.parametrize("served_by", ["auto", "gateway.websocket.upgrade:RawWebSocket"])
async def test_sdk_6_the_example_holds_a_conversation(address: str) -> None:
    async with ClientTransport.connect(
        f"ws://{address}/realtime", token="session-of-ann", channel="conversations:ann:1"
    ) as transport:
        turn = await transport.view.send("Good morning")
        await turn.ended
        assert turn.text == "You said: Good morning"


async def test_everything_is_below_the_path_and_behind_the_hosts_identity(address: str) -> None:
    ann = {"Authorization": "Bearer session-of-ann"}
    async with httpx.AsyncClient(base_url=f"http://{address}/realtime", headers=ann) as http:
        me = (await http.get("/v1/me")).json()
        assert (me["clientId"], me["capability"]) == ("ann", {"conversations:ann:*": ["*"]})
        assert (await http.get("/readyz")).status_code == 200
        assert isinstance((await http.get("/time")).json()[0], int)
        path = "/channels/conversations:ann:2/messages"
        assert (await http.post(path, json={"name": "note", "data": "x"})).status_code == 201
        assert [item["data"] for item in (await http.get(path)).json()] == ["x"]
        other = await http.get("/channels/conversations:bob:1/messages")
        assert other.json()["error"]["code"] == 40160
        assert (await http.get("/time", headers={"Authorization": ""})).status_code == 200
    async with httpx.AsyncClient(base_url=f"http://{address}") as outside:
        assert (await outside.get("/hello")).json() == "your own routes"
        assert (await outside.get("/v1/me")).status_code == 404


async def test_strangers_are_refused(address: str) -> None:
    with pytest.raises(TransportError) as refused:
        async with ClientTransport.connect(
            f"ws://{address}/realtime", token="session-of-no-one.", channel="conversations:ann:1"
        ) as transport:
            await transport.view.send("x")
    assert refused.value.info.status_code in (400, 401)


@pytest.mark.parametrize("served_by", ["auto", "gateway.websocket.upgrade:RawWebSocket"])
async def test_a_client_that_offers_compression_is_served(address: str) -> None:
    """As every browser and Node do; uvicorn's settings would accept the offer."""
    url = f"ws://{address}/realtime/?access_token=session-of-ann&v=4&format=json"
    async with connect(url, compression="deflate") as websocket, asyncio.timeout(10):
        assert json.loads(await websocket.recv())["action"] == 4
        await websocket.send(json.dumps({"action": 10, "channel": "conversations:ann:1"}))
        assert json.loads(await websocket.recv())["action"] == 11


async def test_openais_client_talks_to_the_mounted_gateway(address: str) -> None:
    async with AsyncOpenAI(base_url=f"http://{address}/realtime/v1", api_key="session-of-ann") as client:
        said = await client.responses.create(input="Good morning", conversation="conversations:ann:openai")
        assert said.output_text == "You said: Good morning"
        again = client.responses.stream(response_id=said.id)
        async with again as stream:
            assert (await stream.get_final_response()).output_text == said.output_text
        with pytest.raises(PermissionDeniedError):
            await client.responses.create(input="hi", conversation="conversations:bob:1")
