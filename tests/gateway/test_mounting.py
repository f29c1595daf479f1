"""The gateway inside another application, under a server that gives no access to its sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from uvicorn import Config
from uvicorn.server import ServerState

from gateway import Gateway
from gateway.background import Background
from gateway.websocket.upgrade import QueuedOutlet, UpgradingHttp
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport.errors import StoreUnavailable
from selfhost_transport.settings import KeyRule, RedisSettings, Settings
from tests.gateway.ears import Ear


def settings(redis_url: str, redis_prefix: str) -> Settings:
    return Settings(
        redis=RedisSettings(url=redis_url, prefix=redis_prefix),
        keys=(KeyRule.model_validate({"name": "app.key", "secret": "secret"}),),
    )


def test_a_host_application_keeps_its_own_routes(redis_url: str, redis_prefix: str) -> None:
    gateway = Gateway(settings(redis_url, redis_prefix))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with gateway.lifespan():
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/mine")
    async def mine() -> str:
        return "mine"

    gateway.add_routes(app)
    with TestClient(app) as http:
        assert http.get("/mine").json() == "mine"
        assert http.get("/readyz").status_code == 200
        with http.websocket_connect("/?key=app.key:secret&clientId=a") as websocket:
            assert websocket.receive_json()["action"] == 4
            websocket.send_json({"action": 10, "channel": "c"})
            assert websocket.receive_json()["action"] == 11
            message = {"action": 15, "channel": "c", "msgSerial": 0, "messages": [{"data": "x"}]}
            websocket.send_json(message)
            assert {websocket.receive_json()["action"] for _ in range(2)} == {1, 15}
            websocket.send_json({"action": 7})
            assert websocket.receive_json() == {"action": 8}
    with pytest.raises(StoreUnavailable):
        gateway.running()


async def test_a_queued_outlet_says_when_it_is_full_and_when_it_has_room() -> None:
    ear = Ear()
    sent: list[object] = []

    async def send(message: MutableMapping[str, object]) -> None:
        sent.append(message)

    outlet = QueuedOutlet(send)
    outlet.start(ear, Background("test"), 4, WriteBatch())
    outlet.write(b"\x81\x03abc")
    assert (outlet.congested, ear.heard) == (True, ["(full)"])
    await outlet.flush()
    assert (outlet.congested, ear.heard) == (False, ["(full)", "(room)"])
    assert sent == [{"type": "websocket.send", "text": "abc"}]
    outlet.write(b"\x82\x01x")
    outlet.close()
    await outlet.flush()
    assert sent[1:] == [{"type": "websocket.send", "bytes": b"x"}, {"type": "websocket.close", "code": 1000}]
    outlet.write(b"\x82\x01x")
    await outlet.flush()
    assert len(sent) == 3


@pytest.mark.parametrize(("configured", "kept", "announced"), [(5, 120, b"115"), (300, 300, b"295")])
async def test_an_idle_connection_of_an_embedding_server_is_kept_open_for_long(
    configured: int, kept: int, announced: bytes
) -> None:
    config = Config(FastAPI(), timeout_keep_alive=configured)
    config.load()
    state = ServerState()
    first, second = UpgradingHttp(config, state, {}), UpgradingHttp(config, state, {})
    assert first.timeout_keep_alive == second.timeout_keep_alive == kept
    for headers in (config.encoded_headers, state.default_headers):
        assert headers.count((b"keep-alive", b"timeout=" + announced)) == 1
