"""Rows COT-4 and TOL-13: reasoning and tool traffic is withheld at the server from clients without the right to it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio

from selfhost_transport import Turn, TurnStatus
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.message import Message
from tests.e2e.conftest import _prefix
from tests.e2e.stage import CONFIG, KEY, PATIENCE_S, Stage, script, turn_id
from tests.gateway.raw import CONNECTED, MESSAGE, RawClient, client
from tests.processes import wait_until
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

Map = dict[str, Any]
READER = "test.reader:reader"
TOOLSMITH = "test.tools:tools"
VEILED = (
    CONFIG
    + """
[[namespaces]]
id = "veiled"
agent = "assistant"
withhold = ["reasoning", "tools"]

[[keys]]
name = "test.tools"
secret = "tools"
capability = { "*" = ["subscribe", "history", "tools-subscribe"] }
"""
)
RESUMED = 1 << 2
# What the scripted model thinks, and what it does with its tool. The user's own `script:` has neither.
THOUGHT = re.compile(r'\br\d+ |"kind": ?"reasoning')
TOOL = re.compile(r'the scripted question|"kind": ?"tool-|toolCallId')


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    with _prefix(redis_server.url) as prefix:
        folder = tmp_path_factory.mktemp("withholding")
        running = await Stage.make(redis_server.url, prefix, folder, config=VEILED)
        yield running
        await running.close()


class Watcher:
    """A raw attachment: all it was sent, and the text it makes of that."""

    def __init__(self, raw: RawClient, attached: Map) -> None:
        self._raw = raw
        self.attached = attached
        self.frames: list[Map] = []

    @property
    def messages(self) -> list[Map]:
        return [message for frame in self.frames for message in frame["messages"]]

    @property
    def sent(self) -> str:
        """Everything that arrived, as JSON."""
        return json.dumps(self.frames)

    @property
    def text(self) -> str:
        texts: dict[str, str] = {}
        for message in self.messages:
            codec = message.get("extras", {}).get("ai", {}).get("codec", {})
            if codec.get("kind") == "text":
                before = texts.get(message["serial"], "") if message["action"] == 5 else ""
                texts[message["serial"]] = before + (message.get("data") or "")
        return "".join(texts.values())

    async def until(self, text: str) -> None:
        """Read on until so much text has arrived."""
        while not self.text.startswith(text):
            self.frames.append(await self._raw.action(MESSAGE))

    async def until_end(self) -> None:
        """Read on until a turn's terminal."""
        while not any(message.get("name") == h.AI_RUN_END for message in self.messages):
            self.frames.append(await self._raw.action(MESSAGE))


@asynccontextmanager
async def watching(
    stage: Stage, session: str, key: str, fmt: Format = Format.JSON, gateway: int = 0, **attach: Any
) -> AsyncIterator[Watcher]:
    async with client(stage.gateways[gateway].url, fmt, key=key) as raw:
        await raw.action(CONNECTED)
        yield Watcher(raw, await raw.attach(session, **attach))


async def thought_of(turn: Turn, at: str) -> None:
    """Wait until a turn's reasoning has come so far."""
    await wait_until(lambda: at in thoughts(turn), PATIENCE_S, f"{at!r} in the reasoning of {turn}")


def parts(turn: Turn) -> Iterable[ui.Part]:
    return (part for item in turn.messages for part in item.message.parts)


def thoughts(turn: Turn) -> str:
    return "".join(part.text for part in parts(turn) if isinstance(part, ui.ReasoningPart))


def tools(turn: Turn) -> list[ui.ToolPart]:
    return [part for part in parts(turn) if isinstance(part, ui.ToolPart)]


def http(stage: Stage, key: str) -> httpx.AsyncClient:
    name, _, secret = key.partition(":")
    return httpx.AsyncClient(base_url=stage.gateways[1].url, auth=(name, secret), timeout=15)


async def all_rest_says(stage: Stage, session: str, key: str) -> str:
    """Whatever a caller can read of a session by plain requests, page by page where there are pages."""
    said: list[str] = []
    async with http(stage, key) as rest:
        path: str | None = f"/channels/{session}/messages?limit=3"
        while path is not None:
            page = await rest.get(path)
            assert page.status_code == 200, page.text
            said.append(page.text)
            link = page.links.get("next")
            path = None if link is None else f"/channels/{session}/{link['url'].removeprefix('./')}"
        for resource in ("messages", "entries?limit=1000"):
            response = await rest.get(f"/v1/sessions/{session}/{resource}")
            assert response.status_code == 200, response.text
            said.append(response.text)
    return "\n".join(said)


async def statuses_of(stage: Stage, session: str, key: str, messages: Iterable[Message]) -> set[int]:
    """How single messages, and their versions, are answered."""
    async with http(stage, key) as rest:
        paths = [f"/channels/{session}/messages/{message.serial}" for message in messages]
        assert paths
        answers = [await rest.get(path + tail) for path in paths for tail in ("", "/versions")]
    return {answer.status_code for answer in answers}


async def stored(stage: Stage, session: str, pattern: re.Pattern[str]) -> list[Message]:
    """The messages of the history whose headers match."""
    history = await stage.room(session).history()
    return [message for message in history if pattern.search(json.dumps(message.extras))]


@asynccontextmanager
async def event_stream(
    stage: Stage, session: str, key: str, after: str | None = None
) -> AsyncIterator[list[str]]:
    """The lines of a session's events, as they come."""
    lines: list[str] = []
    opened = asyncio.Event()

    async def read() -> None:
        params = {} if after is None else {"after": after}
        async with (
            http(stage, key) as rest,
            rest.stream("GET", f"/v1/sessions/{session}/events", params=params) as events,
        ):
            async for line in events.aiter_lines():
                lines.append(line)
                opened.set()

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        try:
            await opened.wait()
            yield lines
            await wait_until(
                lambda: any(h.AI_RUN_END in line for line in lines), PATIENCE_S, "the end as an event"
            )
        finally:
            reading.cancel()


@pytest.mark.parametrize("fmt", list(Format))
async def test_cot_4_reasoning_is_withheld_on_every_way_out(stage: Stage, fmt: Format) -> None:
    session, answer = stage.session("veiled"), numbered(20)
    async with (
        stage.connect(session, "alice") as alice,
        watching(stage, session, READER, fmt) as first,
        event_stream(stage, session, READER) as events,
    ):
        turn = await alice.view.send(script(20, 60, reasoning=60))
        await thought_of(turn, "r5 ")
        async with watching(stage, session, READER, fmt, gateway=1) as late:
            await thought_of(turn, "r20 ")
            async with (
                watching(stage, session, READER, fmt, gateway=1, params={"rewind": "50"}) as rewound,
                watching(stage, session, READER, fmt, params={"appendMode": "full"}) as whole,
            ):
                await first.until(numbered(5))
                serial = first.frames[-1]["channelSerial"]
                async with watching(stage, session, READER, fmt, gateway=1, channelSerial=serial) as resumed:
                    assert resumed.attached["flags"] & RESUMED
                    for watcher in (first, late, rewound, whole, resumed):
                        await watcher.until_end()
                        assert not THOUGHT.search(watcher.sent)
        assert {watcher.text for watcher in (first, late, rewound, whole, resumed)} == {answer}
        await turn.ended
        assert thoughts(turn).split()[-1] == "r59"
    assert not THOUGHT.search("\n".join(events))
    assert turn.text == answer


async def test_cot_4_reasoning_is_not_read_back_nor_resumed_past(stage: Stage) -> None:
    session = stage.session("veiled")
    async with stage.connect(session, "alice") as alice, watching(stage, session, KEY) as everything:
        turn = await alice.view.send(script(10, 0, reasoning=300))
        await turn.ended
        await everything.until_end()
    # From before the turn: more than is replayed chunk by chunk, so what streams is delivered as it is now.
    start = everything.attached["channelSerial"]
    async with (
        watching(stage, session, READER, channelSerial=start) as resumed,
        event_stream(stage, session, READER, start) as events,
    ):
        assert resumed.attached["flags"] & RESUMED
        await resumed.until_end()
    assert resumed.text == numbered(10)
    assert THOUGHT.search(everything.sent)
    for said in (resumed.sent, "\n".join(events), await all_rest_says(stage, session, READER)):
        assert not THOUGHT.search(said)
    assert THOUGHT.search(await all_rest_says(stage, session, KEY))
    hidden = await stored(stage, session, THOUGHT)
    assert await statuses_of(stage, session, KEY, hidden) == {200}
    assert await statuses_of(stage, session, READER, hidden) == {404}
    # The other right does not help; in a namespace that withholds nothing none is needed.
    assert not THOUGHT.search(await all_rest_says(stage, session, TOOLSMITH))
    open_session = stage.session()
    async with stage.connect(open_session, "alice") as alice:
        await (await alice.view.send(script(2, 0, reasoning=3))).ended
    assert THOUGHT.search(await all_rest_says(stage, open_session, READER))


async def test_tol_13_tool_traffic_is_withheld_from_those_without_the_right(stage: Stage) -> None:
    session = stage.session("veiled")
    async with (
        stage.connect(session, "alice") as alice,
        watching(stage, session, READER) as reader,
        watching(stage, session, TOOLSMITH, Format.MSGPACK) as toolsmith,
        event_stream(stage, session, READER) as events,
    ):
        turn = await alice.view.send(script(5, 0, tool="server", reasoning=4))
        await turn.ended
        await reader.until_end()
        await toolsmith.until_end()
    assert reader.text == toolsmith.text == numbered(5)
    assert TOOL.search(toolsmith.sent) and not THOUGHT.search(toolsmith.sent)
    for said in (reader.sent, "\n".join(events), await all_rest_says(stage, session, READER)):
        assert not TOOL.search(said) and not THOUGHT.search(said)
    assert TOOL.search(await all_rest_says(stage, session, TOOLSMITH))
    hidden = await stored(stage, session, TOOL)
    assert await statuses_of(stage, session, TOOLSMITH, hidden) == {200}
    assert await statuses_of(stage, session, READER, hidden) == {404}


@pytest.mark.parametrize(
    "directives", [{"tool": "client"}, {"tool": "server", "approve": 1}], ids=["client tool", "approval"]
)
async def test_tol_13_a_turn_that_waits_for_people_looks_sane_without_its_calls(
    stage: Stage, directives: Map
) -> None:
    session = stage.session("veiled")
    async with (
        stage.connect(session, "alice") as alice,
        stage.connect(session, "bob", gateway=1, key=READER) as bob,
        watching(stage, session, READER) as reader,
    ):
        turn = await alice.view.send(script(5, 0, reasoning=4, **directives))
        seen = bob.turn(turn_id(turn))
        await wait_until(lambda: seen.status is TurnStatus.SUSPENDED, PATIENCE_S)
        await wait_until(lambda: turn.status is TurnStatus.SUSPENDED and tools(turn), PATIENCE_S)
        message_id, call = turn.messages[-1].codec_message_id, tools(turn)[-1].tool_call_id
        if "approve" in directives:
            await turn.approve(message_id, call)
        else:
            await turn.answer_tool(message_id, call, "found")
        await seen.ended
        await turn.ended
        await reader.until_end()
        assert seen.status is TurnStatus.COMPLETED and seen.text == numbered(5)
        assert tools(turn) and thoughts(turn)
        assert not tools(seen) and not thoughts(seen)
        assert not bob.active_turns
    assert not TOOL.search(reader.sent) and not THOUGHT.search(reader.sent)
    async with stage.connect(session, "carol", key=READER) as carol:
        reloaded = carol.turn(turn_id(turn))
        assert (reloaded.status, reloaded.text) == (TurnStatus.COMPLETED, numbered(5))
        assert not tools(reloaded) and not thoughts(reloaded)
