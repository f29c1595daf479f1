"""`export --client-id` and `erase --client-id`: a person goes, others and what they said stay (OPS-12)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest
import redis

from selfhost_transport import ClientTransport
from selfhost_transport.errors import InvalidArgument, SessionErased, TransportError
from selfhost_transport.settings import load_settings
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.history import Query
from selfhost_transport.store.push import PushSubscription
from selfhost_transport.store.stores import Stores
from selfhost_transport.wire.actions import AnnotationAction
from selfhost_transport.wire.annotation import Annotation
from selfhost_transport.wire.serial import parse_position
from tests.commands.conftest import Call
from tests.commands.test_erase import CONFIG, KEY, OPERATOR
from tests.processes import Stack, wait_until
from tests.store.everything import mentions

ALICE, BOB = "alice-marked", "bob-marked"
OWN, SHARED = "chat:own", "chat:shared"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.mark.parametrize("way", ["redis", "gateway"])
async def test_a_person_goes_and_others_stay(stack: Stack, call: Call, client: redis.Redis, way: str) -> None:
    gateway = await stack.gateway(config=CONFIG)
    await stack.worker(config=CONFIG)
    named = ("--session", OWN, "--session", SHARED, "--session", "chat:none")
    through = ("--url", gateway.url, "--key", ":".join(OPERATOR), *named) if way == "gateway" else ()

    async def run(*words: str) -> str:
        done = await asyncio.to_thread(call, *words, "--client-id", ALICE, *through)
        assert done.exit_code == 0, (done.output, done.exception)
        return str(done.output)

    def connect(client_id: str, session: str) -> ClientTransport:
        return ClientTransport(
            gateway.url.replace("http", "ws"), key=KEY, client_id=client_id, channel=session
        )

    async with connect(ALICE, OWN) as own, connect(ALICE, SHARED) as alice, connect(BOB, SHARED) as bob:
        refused = list[TransportError]()
        own.on("error", refused.append)
        for one, text in ((own, "mine alone"), (alice, "of alice"), (bob, "of bob")):
            turn = await one.view.send(f"script: say={text.replace(' ', '-')}")
            await asyncio.wait_for(turn.ended, 10)
        await wait_until(lambda: len(bob.view.messages) == 4, 10)
        running = await alice.view.send("script: tokens=5000 rate=50")
        await wait_until(lambda: running.text, 10)
        await _add_the_rest(stack, SHARED)
        by_owner = ("cancel", SHARED, "--client", ALICE, "--force", *through[:4])
        assert (await asyncio.to_thread(call, *by_owner)).exit_code == 0
        running = await alice.view.send("script: tokens=5000 rate=50")
        await wait_until(lambda: running.text, 10)
        async with httpx.AsyncClient(base_url=gateway.url, auth=OPERATOR) as http:
            for person in (ALICE, BOB):
                member = {"action": 2, "clientId": person, "data": "here"}
                done = await http.post(f"/channels/{SHARED}/presence", json=member)
                assert done.status_code < 300 or done.status_code == 404, done.text

        lines = [json.loads(line) for line in (await run("export")).splitlines()]
        text = json.dumps(lines)
        assert "mine-alone" in text and "of-alice" in text and "of-bob" not in text
        assert {"message", "turn", "pushSubscription", "annotation"} <= {line["kind"] for line in lines}
        found = {one["session"]: one["shared"] for one in json.loads(await run("erase", "--json"))}
        assert found == {OWN: False, SHARED: True}
        assert len(mentions(client, stack.redis_prefix, ALICE)) > 5

        report = json.loads(await run("erase", "--yes", "--json"))
        assert (report["erased"], list(report["redacted"]), report["subscriptions"]) == ([OWN], [SHARED], 1)

        # The client of the session that was of this person only is turned away; the others' sees what stays.
        await wait_until(lambda: any(isinstance(error, SessionErased) for error in refused), 10)

        def shown() -> list[str]:
            return [message.message.text for message in bob.view.messages if message.message.text]

        await wait_until(lambda: shown() == ["script: say=of-bob", "of-bob"], 10)
        turn = await bob.view.send("script: say=on-we-go")
        await asyncio.wait_for(turn.ended, 10)
        assert turn.text == "on-we-go"
    async with connect(BOB, SHARED) as again:
        await again.view.load_older()
        texts = [message.message.text for message in again.view.messages if message.message.text]
        assert texts == ["script: say=of-bob", "of-bob", "script: say=on-we-go", "on-we-go"]

    async def nothing() -> bool:
        return not mentions(client, stack.redis_prefix, ALICE)

    # Who reads a session is noted for a while after that.
    await wait_until(nothing, 10)
    assert mentions(client, stack.redis_prefix, BOB) and mentions(client, stack.redis_prefix, OWN) == []


async def _add_the_rest(stack: Stack, session: str) -> None:
    """What the SDK does not write: annotations of each other's messages, and a push subscription."""
    stores = await Stores.open(load_settings(redis=stack.redis_url, redis_prefix=stack.redis_prefix))
    try:
        page = await stores.history.page(session, Query(forwards=True))
        for person, about in ((ALICE, BOB), (BOB, ALICE)):
            (message, *_) = [one for one in page.messages if one.client_id == about]
            position, _, index = parse_position(message.serial or "")
            ref = Ref(position, index or 0)
            for kind in ("likes:distinct.v1", "stars:multiple.v1"):
                one = Annotation(action=AnnotationAction.CREATE, type=kind, name="up", client_id=person)
                await stores.annotations.give(session, [(ref, one)])
        await stores.push.subscribe(
            ALICE, PushSubscription("https://push.example/1", "k", "a", "s", 2**42), 60_000
        )
    finally:
        await stores.close()


async def test_a_gateway_asks_for_the_sessions_of_a_person(stack: Stack, call: Call) -> None:
    gateway = await stack.gateway(config=CONFIG)
    through = ("--url", gateway.url, "--key", ":".join(OPERATOR))
    for unnamed in (["export"], ["erase"], ["erase", "--yes"]):
        done = await asyncio.to_thread(call, *unnamed, "--client-id", ALICE, *through)
        assert isinstance(done.exception, TransportError) and done.exception.info.status_code == 400
    for words in (
        ("erase",),
        ("erase", SHARED, "--client-id", ALICE),
        ("export", SHARED, "--client-id", ALICE),
    ):
        done = await asyncio.to_thread(call, *words)
        assert isinstance(done.exception, InvalidArgument)
