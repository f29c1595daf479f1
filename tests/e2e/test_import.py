"""`import`: conversations of another deployment, which speaks the REST interface that the cloud speaks."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from selfhost_transport import ClientTransport
from selfhost_transport.errors import Conflict, NotFound
from selfhost_transport.importer.importer import Imported, Importer
from selfhost_transport.importer.source import Source
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import load_settings
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.stores import Stores
from selfhost_transport.wire.message import Message
from tests.e2e.node import run_suite
from tests.processes import Proc, Stack, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "app.key:a-secret-of-the-tests"
COMMAND = str(Path(sys.executable).with_name("selfhost-transport"))
KEYS = """
[[keys]]
name = "app.key"
secret = "a-secret-of-the-tests"
capability = { "*" = ["*"] }

[[keys]]
name = "app.blind"
secret = "a-secret-of-the-tests"
capability = { "*" = ["publish"] }
"""
TARGET = f"""
{KEYS}
[[namespaces]]
id = "desk"
agent = "assistant"
"""


class Sites:
    """The deployment to leave, and the one to come to: another prefix is another Redis for all they know."""

    def __init__(self, source: Stack, target: Stack, old: Proc, new: Proc) -> None:
        self.source = source
        self.target = target
        self.old = old
        self.new = new
        self.config = target.folder / "target.toml"
        self.config.write_text(TARGET)
        settings = load_settings(self.config, redis=target.redis_url, redis_prefix=target.redis_prefix)
        self.stores = Stores.build(settings)

    async def take(self, channel: str, session: str | None = None) -> Imported:
        """Import in this process."""
        source = Source(self.old.url, key=KEY)
        try:
            return await Importer(self.stores, source, now_ms=0).run(channel, session)
        finally:
            await source.close()

    async def run(self, *arguments: str, key: str = KEY) -> Proc:
        """Start the command as a person would; it is not waited for."""
        places = ("--redis", self.target.redis_url, "--redis-prefix", self.target.redis_prefix)
        source = ("--from", self.old.url, "--config", str(self.config))
        return await self.target.run(
            str(Path(sys.executable).with_name("selfhost-transport")),
            "import",
            *source,
            *places,
            *arguments,
            env={"ABLY_API_KEY": key},
        )

    async def imported(self, *arguments: str, status: int = 0, key: str = KEY) -> str:
        """What the command printed, once it has ended."""
        proc = await self.run(*arguments, key=key)
        assert await proc.wait(60) == status, proc.log
        return proc.log


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sites(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sites]:
    stacks = [
        Stack(redis_server.url, f"i{uuid.uuid4().hex[:12]}", tmp_path_factory.mktemp(name))
        for name in ("source", "target")
    ]
    try:
        old, new, _ = await asyncio.gather(
            stacks[0].gateway(config=KEYS), stacks[1].gateway(config=TARGET), stacks[1].worker(config=TARGET)
        )
        made = Sites(stacks[0], stacks[1], old, new)
        yield made
        await made.stores.close()
    finally:
        for stack in stacks:
            await stack.close()


def unique(namespace: str) -> str:
    return f"{namespace}:{uuid.uuid4().hex[:8]} ünï"


async def call(gateway: Proc, method: str, channel: str, path: str = "messages", **arguments: Any) -> Any:
    auth = f"Basic {b64encode(KEY.encode()).decode()}"
    url = f"{gateway.url}/channels/{quote(channel, safe='')}/{path}"
    async with httpx.AsyncClient(headers={"authorization": auth}) as client:
        response = await client.request(method, url, **arguments)
    assert response.is_success, response.text
    return response.json()


async def say(gateway: Proc, channel: str, count: int) -> None:
    """So many messages of an application, in one publish."""
    await call(
        gateway, "POST", channel, json=[{"name": "note", "data": f"{number}"} for number in range(count)]
    )


async def history(gateway: Proc, channel: str) -> list[dict[str, Any]]:
    """All messages, oldest first; of a serial only what does not depend on the session."""
    found = await call(gateway, "GET", channel, params={"limit": 1000, "direction": "forwards"})
    for message in found:
        place, _, rest = message["serial"].partition("@")
        message["serial"] = f"{place} {rest.partition(':')[2]}"
        version = message["version"]["serial"].partition("@")[0]
        message["version"] = {**message["version"], "serial": version}
    return list(found)


async def test_conversations_of_a_js_agent_are_read_and_continued(sites: Sites) -> None:
    desk, plain = unique("desk"), unique("plain")
    environment = {
        "KEY": KEY, "DESK": desk, "PLAIN": plain, "FILE": str(sites.target.folder / "reading.json"), "PHASE": "fill",
        "PORTS": str(sites.old.port),
    }  # fmt: skip
    await run_suite(sites.source, "leaving.test.mjs", environment)
    said = await sites.imported(desk, plain)
    assert "5 turns" in said and "4 turns" in said and "2 of 2 channels imported" in said
    assert "1 turns that no one had ended there are cancelled" in said
    await run_suite(
        sites.target, "leaving.test.mjs", {**environment, "PHASE": "check", "PORTS": str(sites.new.port)}
    )


async def test_times_ids_order_and_changes_stay(sites: Sites) -> None:
    channel = unique("plain")
    await say(sites.old, channel, 250)
    body = {"data": '{"a":[1]}', "encoding": "json", "clientId": "ann", "extras": {"headers": {"x": 1}}}
    await call(sites.old, "POST", channel, json=body)
    first, second, third = (await history_with_serials(sites.old, channel))[:3]
    change = {"data": "changed", "version": {"description": "a typo"}}
    await call(sites.old, "PATCH", channel, f"messages/{quote(first)}", json=change)
    await call(sites.old, "PATCH", channel, f"messages/{quote(second)}", json={"action": 2})
    await call(
        sites.old, "PATCH", channel, f"messages/{quote(third)}", json={"action": 5, "data": " and more"}
    )
    report = await sites.take(channel)
    assert (report.messages, report.known) == (251, 0)
    found = await history(sites.new, channel)
    assert [message["action"] for message in found[:4]] == [1, 2, 1, 0]
    assert (found[0]["data"], found[0]["version"]["description"]) == ("changed", "a typo")
    assert found[2]["data"] == "2 and more"
    assert found == await history(sites.old, channel)


async def history_with_serials(gateway: Proc, channel: str) -> list[str]:
    found = await call(gateway, "GET", channel, params={"limit": 3, "direction": "forwards"})
    return [message["serial"] for message in found]


async def test_what_was_imported_can_be_changed(sites: Sites) -> None:
    channel = unique("plain")
    await say(sites.old, channel, 2)
    (first, _) = await history_with_serials(sites.old, channel)
    await call(sites.old, "PATCH", channel, f"messages/{quote(first)}", json={"action": 5, "data": "!"})
    await sites.take(channel)
    for serial in await history_with_serials(sites.new, channel):
        await call(sites.new, "PATCH", channel, f"messages/{quote(serial)}", json={"action": 5, "data": "?"})
    assert [message["data"] for message in await history(sites.new, channel)] == ["0!?", "1?"]


async def test_run_again_it_takes_what_is_new_and_nothing_twice(sites: Sites) -> None:
    channel = unique("plain")
    await say(sites.old, channel, 3)
    await sites.take(channel)
    report = await sites.take(channel)
    assert (report.messages, report.known) == (0, 3)
    await say(sites.old, channel, 2)
    assert (await sites.take(channel)).messages == 2
    assert [message["data"] for message in await history(sites.new, channel)] == ["0", "1", "2", "0", "1"]
    await say(sites.new, channel, 1)
    assert (await sites.take(channel)).messages == 0
    await say(sites.old, channel, 1)
    with pytest.raises(Conflict, match="the conversation goes on"):
        await sites.take(channel)


async def test_killed_in_between_it_goes_on(sites: Sites) -> None:
    channel = unique("plain")
    store = SessionStore(sites.stores.redis, Keyspace(sites.source.redis_prefix))
    await asyncio.gather(*(store.publish(channel, [Message(data=f"{number}")]) for number in range(1500)))
    killed = await sites.run(channel)

    async def has_begun() -> bool:
        return (await sites.stores.imports.state(channel)).mark is not None

    await wait_until(has_begun, 20)
    killed.kill()
    await killed.wait()
    assert 0 < (await sites.take(channel)).messages < 1500
    old, new = SessionStore(sites.stores.redis, Keyspace(sites.source.redis_prefix)), sites.stores.sessions
    assert await datas(new, channel) == await datas(old, channel)


async def datas(store: SessionStore, channel: str) -> list[object]:
    pages = [await store.history.page(channel, Query(limit=1000))]
    while pages[-1].next_cursor is not None:
        pages.append(await store.history.page(channel, Query(limit=1000, cursor=pages[-1].next_cursor)))
    return [(message.timestamp, message.data) for page in pages for message in page.messages]


async def test_who_is_attached_meanwhile_gets_the_history_with_the_next_message(sites: Sites) -> None:
    channel = unique("desk")
    async with (
        ClientTransport.connect(
            f"ws://127.0.0.1:{sites.old.port}", key=KEY, client_id="ann", channel=channel
        ) as old,
        ClientTransport.connect(
            f"ws://127.0.0.1:{sites.new.port}", key=KEY, client_id="bob", channel=channel
        ) as new,
    ):
        await old.view.send("asked elsewhere")
        await sites.take(channel)
        turn = await new.view.send("script: tokens=3 rate=100")
        await turn.ended
        await wait_until(lambda: len(new.view.messages) == 3, 20, "the imported question is there, too")
        assert [one.message.text.strip() for one in new.view.messages] == [
            "asked elsewhere", "script: tokens=3 rate=100", "0 1 2",
        ]  # fmt: skip


async def test_a_dry_run_writes_nothing(sites: Sites) -> None:
    channel = unique("plain")
    await say(sites.old, channel, 4)
    assert "would import 4 messages" in await sites.imported("--dry-run", channel)
    assert not await sites.stores.sessions.exists(channel)


async def test_a_file_names_channels_and_sessions(sites: Sites) -> None:
    first, second, empty = unique("plain"), unique("plain"), unique("plain")
    await say(sites.old, first, 1)
    await say(sites.old, second, 2)
    file: Path = sites.target.folder / "channels.txt"
    file.write_text(f"# two of them\n{first}\n\n{second}\t{second}-moved\n{empty}\n")
    lines = (await sites.imported("--json", "--channels", str(file))).splitlines()
    reports = [json.loads(line) for line in lines]
    assert [(one["session"], one["messages"]) for one in reports] == [
        (first, 1), (f"{second}-moved", 2), (empty, 0),
    ]  # fmt: skip
    assert len(await history(sites.new, f"{second}-moved")) == 2


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("app.key:wrong", "refuses the key"),
        ("app.blind:a-secret-of-the-tests", "it needs `history`"),
        ("nonsense", "error 40"),
    ],
)
async def test_a_wrong_key_is_explained(sites: Sites, key: str, words: str) -> None:
    assert words in await sites.imported(unique("plain"), status=1, key=key)


async def test_an_empty_channel_is_explained(sites: Sites) -> None:
    said = await sites.imported(unique("plain"))
    assert "nothing found" in said and "keeps no history" in said


async def test_a_session_in_use_is_not_written_to(sites: Sites) -> None:
    channel = unique("plain")
    await say(sites.old, channel, 1)
    await say(sites.new, channel, 1)
    with pytest.raises(Conflict, match="has messages already"):
        await sites.take(channel)
    await sites.take(channel, f"{channel}-old")
    assert len(await history(sites.new, f"{channel}-old")) == 1
    other = unique("plain")
    with pytest.raises(Conflict, match="holds the import of"):
        await sites.take(other, f"{channel}-old")


async def test_a_source_that_is_something_else(sites: Sites) -> None:
    source = Source(f"{sites.old.url}/elsewhere", key=KEY)
    with pytest.raises(NotFound, match="knows no such application or path"):
        await anext(source.pages("plain:x"))
    await source.close()


async def test_a_history_that_begins_in_the_middle_is_noticed(sites: Sites) -> None:
    channel = unique("plain")
    extras = {"ai": {"transport": {"codec-message-id": "b", "parent": "a", "role": "user"}}}
    await call(sites.old, "POST", channel, json={"name": "ai-input", "data": "", "extras": extras})
    assert (await sites.take(channel)).truncated


async def test_what_is_still_being_written_is_noticed(sites: Sites) -> None:
    channel = unique("plain")
    extras = {
        "ai": {"transport": {"codec-message-id": "b", "run-id": "r", "stream": "true", "status": "streaming"}}
    }
    await call(sites.old, "POST", channel, json={"name": "ai-output", "data": "", "extras": extras})
    assert (await sites.take(channel)).growing == 1


async def test_a_busy_source_is_asked_again() -> None:
    answers = [
        httpx.Response(429, headers={"retry-after": "0"}, json={"error": {"code": 42910, "statusCode": 429}}),
        httpx.Response(503),
        httpx.Response(200, json=[{"serial": "01-000@abc:000", "data": "x"}]),
    ]
    source = Source("https://source.test", key=KEY, http=httpx.MockTransport(lambda _: answers.pop(0)))
    assert [one.data async for page in source.pages("c") for one in page.messages] == ["x"]
    await source.close()


async def test_a_link_to_another_host_is_not_followed() -> None:
    asked: list[httpx.URL] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        link = {"link": '<https://thief.test/x?cursor=1>; rel="next"'} if len(asked) == 1 else {}
        return httpx.Response(200, json=[], headers=link)

    source = Source("https://source.test", key=KEY, http=httpx.MockTransport(answer))
    assert [page.messages async for page in source.pages("c")] == [[], []]
    assert {url.host for url in asked} == {"source.test"}
    await source.close()
