"""The realtime protocol over HTTP requests, as they are on the wire; any process of a group answers them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.background import Background
from gateway.comet import outlet as outlets
from gateway.comet.outlet import CometOutlet
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport.wire.websocket import ws_frame_header
from tests.gateway.basic_auth import basic
from tests.gateway.ears import Ear
from tests.gateway.raw import ACK, ATTACHED, CONFIG, CONNECTED, ERROR, KEY, MESSAGE, NACK, Map, message
from tests.processes import Stack, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")
Names = Callable[[str], str]
CLOSED, HEARTBEAT = 8, 0


class Poller:
    """A connection over HTTP requests; with `fresh`, each over a TCP connection of its own."""

    def __init__(self, http: httpx.AsyncClient, key: str = KEY, *, fresh: bool = False) -> None:
        self.http = http
        self.credentials = {"key": key}
        self.headers = {"connection": "close"} if fresh else {}
        self.connection_key = ""
        self.kept: list[Map] = []

    async def get(self, path: str, **query: str) -> httpx.Response:
        params = {**self.credentials, **query}
        return await self.http.get(f"/comet/{path}", params=params, headers=self.headers)

    async def connect(self, **query: str) -> Map:
        self.kept = (await self.get("connect", stream="false", v="6", **query)).json()
        connected = self.kept.pop(0)
        if connected["action"] == CONNECTED:
            self.connection_key = connected["connectionDetails"]["connectionKey"]
        return connected

    async def recv(self) -> httpx.Response:
        return await self.get(f"{self.connection_key}/recv")

    async def send(self, *frames: Any) -> httpx.Response:
        path = f"/comet/{self.connection_key}/send"
        return await self.http.post(path, params=self.credentials, json=list(frames), headers=self.headers)

    async def next(self, *actions: int) -> Map:
        """The next frame with one of these actions; others are dropped."""
        async with asyncio.timeout(10):
            while True:
                while self.kept:
                    frame = self.kept.pop(0)
                    if frame["action"] in actions:
                        return frame
                answer = await self.recv()
                assert answer.status_code == 200, answer.text
                self.kept = answer.json()


@asynccontextmanager
async def poller(url: str, key: str = KEY, *, fresh: bool = False) -> AsyncIterator[Poller]:
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        yield Poller(http, key, fresh=fresh)


async def test_frames_of_one_request_are_taken_in_order(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with poller(url) as client:
        assert (await client.connect(clientId="a"))["connectionDetails"]["clientId"] == "a"
        sent = await client.send(
            {"action": 10, "channel": channel}, *[message(channel, n, str(n)) for n in range(20)]
        )
        assert (sent.status_code, sent.content) == (204, b"")
        heard: list[str] = []
        answered: list[int] = []
        while len(heard) < 20 or len(answered) < 20:
            frame = await client.next(ATTACHED, ACK, MESSAGE)
            heard += [one["data"] for one in frame.get("messages", [])]
            answered += [frame["msgSerial"]] if frame["action"] == ACK else []
        assert (heard, answered) == ([str(n) for n in range(20)], list(range(20)))
        assert (await client.get(f"{client.connection_key}/close")).status_code == 204
        assert (await client.next(CLOSED))["action"] == CLOSED
        gone = await client.recv()
        assert (gone.status_code, gone.json()["error"]["code"]) == (400, 80008)
        assert gone.headers["x-ably-errorcode"] == "80008"


async def test_an_idle_request_ends_with_a_heartbeat(url: str) -> None:
    async with poller(url) as client:
        await client.connect(heartbeats="true")
        assert (await client.recv()).json() == [{"action": HEARTBEAT}]


async def test_refusals_are_frames(url: str) -> None:
    async with poller(url, "app.key:wrong") as client:
        refused = await client.connect()
        assert (refused["action"], refused["error"]["code"]) == (9, 40101)


async def test_requests_of_a_connection_need_its_key_and_credentials_of_its_client(url: str) -> None:
    async with poller(url) as client, poller(url, "app.reader:reader") as other:
        await client.connect(clientId="a")
        key = client.connection_key
        for credentials, found, code in (
            ({}, key, 40101),
            ({"key": "app.key:wrong"}, key, 40101),
            ({"key": KEY}, key.replace("!", "!0"), 80018),
            ({"key": KEY}, "nonsense", 80018),
        ):
            client.credentials, client.connection_key = credentials, found
            answer = await client.recv()
            assert answer.json()["error"]["code"] == code, (credentials, found)
        other.connection_key = key
        token = await other.http.post(
            "/keys/app.key/requestToken", json={"clientId": "b"}, headers=basic(KEY)
        )
        other.credentials = {"access_token": token.json()["token"]}
        assert (await other.recv()).json()["error"]["code"] == 80011


async def test_requests_of_a_transport_before_the_present_one_do_not_reach_it(url: str) -> None:
    async with poller(url) as client, poller(url) as again:
        first = await client.connect(clientId="a")
        resumed = await again.connect(clientId="a", resume=client.connection_key)
        assert (resumed["connectionId"], resumed.get("error")) == (first["connectionId"], None)
        assert (await client.get(f"{client.connection_key}/disconnect")).status_code == 204
        assert (await client.send({"action": 0, "id": "x"})).json()["error"]["code"] == 80008
        assert (await again.send({"action": 0, "id": "y"})).status_code == 204
        assert (await again.next(HEARTBEAT)).get("id") == "y"


@pytest.mark.parametrize("body", [b"{}", b"nonsense", b""])
async def test_a_body_that_is_no_list_of_frames_is_refused(url: str, body: bytes) -> None:
    async with poller(url) as client:
        await client.connect()
        path = f"/comet/{client.connection_key}/send"
        answer = await client.http.post(path, params=client.credentials, content=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, 40001)


async def test_a_stream_is_lines_of_lists(url: str, unique: Names) -> None:
    channel = unique("plain")
    async with poller(url) as client:
        query = {**client.credentials, "v": "6"}
        async with client.http.stream("GET", "/comet/connect", params=query) as answer:
            lines = answer.aiter_lines()
            connected = json.loads(await anext(lines))[0]
            client.connection_key = connected["connectionDetails"]["connectionKey"]
            await client.send({"action": 10, "channel": channel}, message(channel, 0, "x"))
            heard: list[int] = []
            while MESSAGE not in heard or ACK not in heard:
                heard += [frame["action"] for frame in json.loads(await anext(lines))]
            await client.get(f"{client.connection_key}/close")
            rest = [frame["action"] async for line in lines for frame in json.loads(line)]
            assert rest[-1] == CLOSED


async def test_any_process_of_a_group_answers(site: Stack, unique: Names) -> None:
    gateway = await site.gateway("--processes", "2", config=CONFIG)
    channel = unique("plain")
    async with poller(gateway.url, fresh=True) as client:
        await client.connect(clientId="a")
        await client.send({"action": 10, "channel": channel})
        await client.next(ATTACHED)
        for number in range(30):
            assert (await client.send(message(channel, number, str(number)))).status_code == 204
            assert (await client.next(ACK))["msgSerial"] == number
        # Of a process that has ended no one holds the connection any more.
        _, _, signed = client.connection_key.partition(".")
        client.connection_key = f"gw-00000000.{signed}"
        codes = {answer.status_code for answer in [await client.send() for _ in range(20)]}
        assert 400 in codes and codes <= {204, 400}


class TestOutlet:
    async def test_what_no_one_asks_for_is_bounded(self) -> None:
        ear, way_out = Ear(), CometOutlet("")
        way_out.start(ear, Background("test"), 100, WriteBatch())
        frame = ws_frame_header(True, 50) + b"x" * 50
        for _ in range(3):
            way_out.write(frame)
        assert way_out.congested and ear.heard == ["(full)"]
        assert way_out.take() == b"[" + b",".join([b"x" * 50] * 3) + b"]"
        assert ear.heard == ["(full)", "(room)"]
        way_out.abort()

    async def test_a_client_that_does_not_ask_again_is_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outlets, "UNASKED_TIMEOUT_S", 0.01)
        ear, way_out = Ear(), CometOutlet("")
        gone: list[str] = []
        way_out.on_end = lambda: gone.append("gone")
        way_out.start(ear, Background("test"), 100, WriteBatch())
        await wait_until(lambda: way_out.closed)
        assert ear.heard == ["(end)"] and gone == ["gone"]

    async def test_a_later_request_takes_the_place_of_an_earlier_one(self) -> None:
        way_out = CometOutlet("")
        way_out.start(Ear(), Background("test"), 100, WriteBatch())
        first = way_out.begin()
        waiting = asyncio.ensure_future(way_out.ready(first))
        second = way_out.begin()
        assert await waiting is False
        way_out.write(ws_frame_header(True, 2) + b"{}")
        assert await way_out.ready(second)
        way_out.end(first, aborted=True)
        assert not way_out.closed and way_out.take() == b"[{}]"
        way_out.abort()


async def test_halves_of_characters_and_deep_values_are_what_they_are_on_a_websocket(
    url: str, unique: Names
) -> None:
    channel = unique("plain")
    async with httpx.AsyncClient(base_url=url, timeout=10.0) as http:
        poller = Poller(http)
        await poller.connect(clientId="anna")
        await poller.send({"action": 10, "channel": channel})
        await poller.next(ATTACHED)
        deep: Any = "x"
        for _ in range(400):
            deep = [deep]
        bodies = [
            rb'[{"action":15,"channel":"%s","msgSerial":0,"messages":[{"data":"a\ud83d"}]}]'
            % channel.encode(),
            json.dumps(
                [{"action": 15, "channel": channel, "msgSerial": 1, "messages": [{"extras": deep}]}]
            ).encode(),
        ]
        for body in bodies:
            sent = await http.post(
                f"/comet/{poller.connection_key}/send", params=poller.credentials, content=body
            )
            assert sent.status_code == 204, sent.text
        arrived = await poller.next(MESSAGE)
        assert arrived["messages"][0]["data"] == "a\ufffd"
        refused = await poller.next(NACK, ERROR)
        assert refused["error"]["statusCode"] == 400
        unreadable = await http.post(
            f"/comet/{poller.connection_key}/send",
            params=poller.credentials,
            content=b"[" * 200_000 + b"]" * 200_000,
        )
        assert unreadable.status_code == 400
