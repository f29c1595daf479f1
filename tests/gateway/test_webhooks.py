"""Webhooks: signed, at least once, in order, given up in the end; several gateways deliver each event once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from gateway.webhooks import WebhookSender
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import Settings, WebhookRule
from tests.processes import Stack, wait_until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CONFIG = f"""
[worker]
lease_ms = 500
max_attempts = 1

[[keys]]
name = "app.key"
secret = "a-long-secret"

[[namespaces]]
id = "chat"
agent = "assistant"

[[webhooks]]
name = "backend"
url = "URL"
secret = "{SECRET}"
max_attempts = 2
"""
AGENT = "tests.observing.traced_agent:worker"


@dataclass
class Receiver:
    """An address; `status` decides how it answers an event."""

    url: str = ""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    status: Callable[[dict[str, Any]], int] = lambda event: 204

    @property
    def events(self) -> list[dict[str, Any]]:
        """What arrived, verified."""
        return [Webhook(SECRET).verify(body, headers) for headers, body in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        body = await reader.readexactly(int(headers["content-length"]))
        event = Webhook(SECRET).verify(body, headers)
        self.requests.append((headers, body))
        writer.write(
            f"HTTP/1.1 {self.status(event)} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield receiver


async def _send(http: httpx.AsyncClient, session: str, text: str) -> str:
    sent = await http.post(f"/v1/sessions/{session}/turns", json={"text": text, "clientId": "ann"})
    return str(sent.json()["turnId"])


async def test_turns_are_announced_once_by_several_gateways_in_order(stack: Stack) -> None:
    async with receiving() as receiver:
        config = CONFIG.replace("URL", receiver.url)
        gateways = [await stack.gateway(config=config) for _ in range(2)]
        await stack.worker(config=config)
        async with httpx.AsyncClient(base_url=gateways[0].url, auth=("app.key", "a-long-secret")) as http:
            turns = []
            for _ in range(5):
                turns.append(await _send(http, "chat:a", "script: tokens=2 rate=0"))
                await wait_until(lambda: len(receiver.requests) >= len(turns), 10)
            gateways[0].kill()
        async with httpx.AsyncClient(base_url=gateways[1].url, auth=("app.key", "a-long-secret")) as http:
            turns.append(await _send(http, "chat:other", "script: tokens=2 rate=0"))
            await wait_until(lambda: len(receiver.requests) >= 6, 10)
        assert [event["data"]["turnId"] for event in receiver.events] == turns
        first = receiver.events[0]
        assert first["type"] == "turn.ended" and first["data"]["status"] == "completed"
        assert (first["data"]["owner"], first["data"]["agent"]) == ("ann", "assistant")
        assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 6
        headers, body = receiver.requests[0]
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body.replace(b"completed", b"cancelled"), headers)


async def test_a_refused_event_is_repeated_under_its_id_and_given_up_in_the_end(stack: Stack) -> None:
    async with receiving() as receiver:
        config = CONFIG.replace("URL", receiver.url)
        gateway = await stack.gateway(config=config)
        await stack.worker(config=config)
        receiver.status = lambda event: 500 if event["data"]["session"] == "chat:bad" else 200
        async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "a-long-secret")) as http:
            turn = await _send(http, "chat:bad", "script: tokens=1 rate=0")

            async def given_up() -> bool:
                return bool((await http.get("/v1/operator/webhooks/backend/dead")).json())

            await wait_until(given_up, 10)
            (letter,) = (await http.get("/v1/operator/webhooks/backend/dead")).json()
            assert (letter["turnId"], letter["event"], letter["reason"]) == (turn, "ended", "status 500")
            assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
            assert len(receiver.requests) == 2
            assert (await http.get("/v1/operator/webhooks/none/dead")).status_code == 404
            # The next one is not held up by it.
            await _send(http, "chat:bad2", "script: tokens=1 rate=0")
            await wait_until(lambda: len(receiver.requests) == 3, 10)
        assert SECRET not in gateway.log
        # An address that fails is a line of the log, no fault of ours with a trace of calls.
        assert (
            f"webhook.retried webhook=backend session=chat:bad turn={turn} delivery=1 error=status 500"
            in gateway.log
        )
        assert "Traceback" not in gateway.log


async def test_suspensions_and_dead_letters_are_announced(stack: Stack) -> None:
    async with receiving() as receiver:
        config = CONFIG.replace("URL", receiver.url)
        gateway = await stack.gateway(config=config)
        asking = await stack.worker(AGENT, config=config)
        async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "a-long-secret")) as http:
            await _send(http, "chat:s", "approve")
            await wait_until(lambda: len(receiver.requests) == 1, 10)
            assert [event["type"] for event in receiver.events] == ["turn.suspended"]
            asking.terminate()
            await asking.wait()
            worker = await stack.worker(config=config)
            turn = await _send(http, "chat:d", "script: tokens=1000 rate=20")

            async def is_active() -> bool:
                found = await http.get(f"/v1/sessions/chat:d/turns/{turn}")
                return bool(found.json()["status"] == "active")

            await wait_until(is_active, 10)
            worker.kill()
            await stack.worker(config=config)
            await wait_until(lambda: len(receiver.requests) == 3, 15)
        assert [event["type"] for event in receiver.events[1:]] == ["turn.ended", "turn.dead_letter"]


def test_a_secret_that_is_none_is_refused() -> None:
    rule = WebhookRule.model_validate({"name": "x", "url": "http://localhost", "secret": "whsec_" + "é" * 20})
    with pytest.raises(InvalidArgument, match="whsec_"):
        WebhookSender(Settings(), rule)
