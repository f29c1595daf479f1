"""`export SESSION` and `erase`, in Redis and through a gateway, with clients that are attached (OPS-12)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from selfhost_transport import ClientTransport
from selfhost_transport.errors import (
    CapabilityError,
    InvalidArgument,
    NotFound,
    SessionErased,
    TransportError,
)
from tests.commands.conftest import Call
from tests.processes import Stack, wait_until
from tests.store.everything import mentions

CONFIG = """
[[keys]]
name = "app.operator"
secret = "operator"

[[keys]]
name = "app.chat"
secret = "chat"
capability = { "*" = ["subscribe", "publish", "history", "presence"] }

[[namespaces]]
id = "chat"
agent = "assistant"
"""
KEY = "app.chat:chat"
OPERATOR = ("app.operator", "operator")
NAME = "chat:marked"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.mark.parametrize("way", ["redis", "gateway"])
async def test_an_attached_client_learns_that_its_session_was_erased(
    stack: Stack, call: Call, client: redis.Redis, way: str
) -> None:
    gateway, other = await stack.gateway(config=CONFIG), await stack.gateway(config=CONFIG)
    await stack.worker(config=CONFIG)
    through = ("--url", gateway.url, "--key", ":".join(OPERATOR)) if way == "gateway" else ()

    async def run(*words: str) -> str:
        done = await asyncio.to_thread(call, *words, *through)
        assert done.exit_code == 0, (done.output, done.exception)
        return str(done.output)

    async with (
        ClientTransport.connect(other.url, key=KEY, client_id="ann", channel=NAME) as ann,
        httpx.AsyncClient(base_url=other.url, auth=("app.chat", "chat"), timeout=20) as http,
    ):
        errors = list[TransportError]()
        ann.on("error", errors.append)
        ended = await ann.view.send("script: tokens=3 rate=1000")
        await ended.ended
        turn = await ann.view.send("script: tokens=5000 rate=50")
        await wait_until(lambda: turn.text, 10)
        events = asyncio.create_task(_events(http))
        await wait_until(lambda: "occupied" if mentions(client, stack.redis_prefix, NAME) else "", 5)

        lines = [json.loads(line) for line in (await run("export", NAME)).splitlines()]
        kinds = {line["kind"] for line in lines}
        assert {"session", "message", "turn"} <= kinds and all(line["session"] == NAME for line in lines)
        turns = {line["turnId"]: line["status"] for line in lines if line["kind"] == "turn"}
        assert turns == {ended.turn_id: "completed", turn.turn_id: "active"}
        said = {line["message"].get("data") for line in lines if line["kind"] == "message"}
        assert {"script: tokens=3 rate=1000", "script: tokens=5000 rate=50"} <= said

        assert "1 open turn(s)" in await run("erase", NAME)
        assert mentions(client, stack.redis_prefix, NAME)
        report = json.loads(await run("erase", NAME, "--yes", "--json"))
        assert (report["session"], report["turns_cancelled"]) == (NAME, 1)

        # The turn ended, the channel failed with the reason, the event stream ended with it.
        await asyncio.wait_for(turn.ended, 10)
        await wait_until(lambda: any(isinstance(error, SessionErased) for error in errors), 10)
        assert (await asyncio.wait_for(events, 10))["error"]["code"] == 104019
        with pytest.raises(SessionErased):
            await ann.view.send("once more")
        refused = await http.post(f"/v1/sessions/{NAME}/turns", json={"text": "again", "clientId": "ann"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (410, 104019)

    async def nothing() -> bool:
        return not mentions(client, stack.redis_prefix, NAME)

    await wait_until(nothing, 10)


async def _events(http: httpx.AsyncClient) -> dict[str, dict[str, int]]:
    """The content of the event `error`, with which a stream ends."""
    async with http.stream("GET", f"/v1/sessions/{NAME}/events") as response:
        kind = ""
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            kind = value if name == "event" else kind
            if name == "data" and kind == "error":
                found: dict[str, dict[str, int]] = json.loads(value)
                return found
    raise AssertionError("the stream ended without a reason")


async def test_export_and_erase_say_what_they_cannot_do(stack: Stack, call: Call) -> None:
    gateway = await stack.gateway(config=CONFIG)
    async with httpx.AsyncClient(base_url=gateway.url, auth=("app.chat", "chat")) as http:
        await http.post("/v1/sessions/chat:a/turns", json={"text": "hello", "clientId": "ann"})
    through = ("--url", gateway.url)

    async def error(*words: str) -> BaseException | None:
        return (await asyncio.to_thread(call, *words)).exception

    for place in ((), (*through, "--key", ":".join(OPERATOR))):
        for words in (("export", "chat:none"), ("erase", "chat:none")):
            assert isinstance(await error(*words, *place), NotFound)
        to = f"out-{len(place)}.jsonl"
        done = await asyncio.to_thread(call, "export", "chat:a", "--to", to, *place)
        assert done.exit_code == 0 and "3 lines" in done.output
        written = await asyncio.to_thread(Path(to).read_text)
        assert [json.loads(line)["kind"] for line in written.splitlines()] == ["session", "message", "turn"]
        assert isinstance(await error("export", "chat:a", "--to", to, *place), InvalidArgument)
    refused: list[tuple[str, ...]] = [("export", "chat:a"), ("erase", "chat:a"), ("erase", "chat:a", "--yes")]
    for each in refused:
        assert isinstance(await error(*each, *through, "--key", KEY), CapabilityError)
