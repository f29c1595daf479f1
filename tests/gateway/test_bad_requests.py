"""What no client sends by accident: each gets a typed answer, and none a traceback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from selfhost_transport.errors import StoreFull, StoreUnavailable, StoreUnsuitable
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.wire.codec import Format
from tests.gateway.raw import CONFIG, CONNECTED, ERROR, KEY, RawClient, client
from tests.processes import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONTROLS = ["\0", "\n", "\r\nX-Evil: y", "\t", "\x1f", "\x7f", "\u0085", "\u2028"]
NAME, _, SECRET = KEY.partition(":")


@pytest_asyncio.fixture(loop_scope="module")
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, auth=(NAME, SECRET)) as opened:
        yield opened


def typed(response: httpx.Response) -> None:
    """A refusal with a code, of which the header says no less and no more; or an answer."""
    assert response.status_code < 500, (response.request.url, response.text)
    assert "x-evil" not in response.headers
    if response.status_code >= 400:
        error = response.json()["error"]
        assert error["code"] >= 40000
        assert response.headers["x-ably-errorcode"] == str(error["code"])


@pytest.mark.parametrize("control", CONTROLS, ids=repr)
async def test_control_characters_in_a_path(http: httpx.AsyncClient, control: str) -> None:
    name = quote(f"a{control}b", safe="")
    for path in (
        f"/channels/{name}/messages", f"/channels/x/messages/{name}", f"/channels/x/messages/{name}/versions",
        f"/channels/x/messages/{name}/annotations", f"/v1/sessions/{name}/turns", f"/v1/sessions/x/turns/{name}",
        f"/v1/sessions/x/entries?after={name}", f"/{name}", f"/static/{name}",
    ):  # fmt: skip
        response = await http.get(path)
        assert response.status_code < 500 and "x-evil" not in response.headers
    for method, path in (
        ("DELETE", f"/v1/sessions/bound:x/queue/{name}"),
        ("POST", f"/v1/sessions/bound:x/queue/{name}/promote"),
        ("POST", f"/v1/sessions/bound:x/turns/{name}/inputs"),
        ("POST", f"/keys/{name}/requestToken"),
        ("PATCH", f"/channels/x/messages/{name}"),
    ):
        typed(await http.request(method, path, json={"text": "x", "clientId": "ann"}))


@pytest.mark.parametrize("control", CONTROLS, ids=repr)
async def test_control_characters_in_the_name_of_a_field(http: httpx.AsyncClient, control: str) -> None:
    body = json.dumps({"text": "x", f"a{control}b": 1})
    for path in (
        "/v1/sessions/bound:x/turns", "/v1/sessions/bound:x/cancel", "/v1/sessions/bound:x/turns/t/inputs",
        "/v1/sessions/bound:x/turns/t/answers", "/channels/x/messages", "/messages", f"/keys/{NAME}/requestToken",
    ):  # fmt: skip
        typed(await http.post(path, content=body, headers={"content-type": "application/json"}))


@pytest.mark.parametrize(
    "number", ["99999999999999999999", "18446744073709551616", "9" * 4400, "1e3", "٣", " 1", "1_0", "+1"]
)
async def test_numbers_that_are_none_or_too_large(http: httpx.AsyncClient, number: str) -> None:
    for path in ("/channels/x/messages", "/channels/x/history", "/channels/x/presence/history"):
        for name in ("start", "end", "limit"):
            refused = await http.get(path, params={name: number})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, 40003), (path, name)


@pytest.mark.parametrize(
    "version", ["2.x", "2.", "2.5.6", "x", "²", "\uff19", "-2", "nan", "1e5", "9" * 400, "1"]
)
async def test_versions_of_the_protocol_that_are_none(url: str, version: str) -> None:
    address = url.replace("http://", "ws://") + f"/?v={quote(version)}&format=json&key={KEY}"
    async with connect(address, compression=None) as websocket:
        first = await RawClient(websocket, Format.JSON).next()
        assert (first["action"], first["error"]["code"]) == (ERROR, 40017)


async def test_parameters_of_a_connection_that_make_no_sense(url: str) -> None:
    for name in ("heartbeatInterval", "remainPresentFor", "appendRollupWindow"):
        for value in ("9" * 5000, "²", "-1", "x"):
            async with client(url, Format.JSON, **{name: quote(value)}) as raw:
                assert (await raw.next())["action"] == CONNECTED


async def test_errors_do_not_name_the_redis_server(tmp_path: Path) -> None:
    for kind in (StoreUnavailable, StoreFull, StoreUnsuitable):
        error = kind("Redis at 10.1.2.3:6379 says NOPERM")
        assert "10.1.2.3" in str(error) and "10.1.2.3" not in error.info.message and error.info.message
    with EmbeddedRedis() as redis:
        port = redis.url.rpartition(":")[2].partition("/")[0]
        stack = Stack(redis.url, "sht", tmp_path)
        gateway = await stack.gateway(config=CONFIG)
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
            async with asyncio.timeout(20):
                while (ready := await http.get("/readyz")).status_code == 200:
                    await asyncio.sleep(0.05)
            reported = [ready, await http.get("/channels/x/messages", auth=(NAME, SECRET))]
        for response in reported:
            assert response.status_code == 503
            assert port not in response.text and "127.0.0.1" not in response.text, response.text
        assert ready.json()["reason"]
    finally:
        await stack.close()
