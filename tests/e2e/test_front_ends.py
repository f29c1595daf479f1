"""One conversation, whatever speaks to it: plain HTTP pages, AG-UI, the Python SDK; and gateways and workers that die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from selfhost_transport import TurnStatus
from tests.e2e.conftest import Build
from tests.e2e.node import FOLDER
from tests.e2e.proxy import Network
from tests.e2e.stage import CONFIG, KEY, PATIENCE_S, Stage, script, turn_id
from tests.processes import wait_until
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME, SECRET = KEY.split(":")
SILENT = CONFIG + '\n[[namespaces]]\nid = "watched"\nagent = "assistant"\nabandon_after = "1s"\n'


def http(stage: Stage, gateway: int = 0, client_id: str = "user-1") -> httpx.AsyncClient:
    """A page's or a program's requests, as a person."""
    return httpx.AsyncClient(
        base_url=stage.gateways[gateway].url,
        auth=(NAME, SECRET),
        params={"clientId": client_id},
        timeout=PATIENCE_S,
    )


def page_message(text: str) -> dict[str, Any]:
    """What `useChat` posts."""
    message = {"id": uuid.uuid4().hex, "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"messages": [message], "trigger": "submit-message"}


def run_input(thread: str, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What AG-UI's client posts."""
    run = {"threadId": thread, "runId": uuid.uuid4().hex, "protocolVersion": "1.0"}
    return {**run, "messages": list(messages), **fields}


class Listener:
    """One response, read as it comes."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.status = 0

    @property
    def text(self) -> str:
        """The answer so far."""
        text = ""
        for event in self.events:
            if event["type"] == "MESSAGES_SNAPSHOT":
                said = [m for m in event["messages"] if m["role"] == "assistant"]
                text = "".join(m.get("content") or "" for m in said[-1:])
            elif event["type"] in ("text-delta", "TEXT_MESSAGE_CONTENT"):
                text += event["delta"]
        return text

    async def read(self, client: httpx.AsyncClient, method: str, path: str, **request: Any) -> Listener:
        """To the end, or until it is cut."""
        async with client.stream(method, path, **request) as response:
            self.status = response.status_code
            with contextlib.suppress(httpx.TransportError):
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        self.events.append(orjson.loads(line[6:]))
        return self


@contextlib.asynccontextmanager
async def listening(
    client: httpx.AsyncClient, method: str, path: str, **request: Any
) -> AsyncIterator[tuple[Listener, asyncio.Task[Listener]]]:
    """A listener that has begun, and the task that reads on."""
    listener = Listener()
    task = asyncio.create_task(listener.read(client, method, path, **request))
    try:
        await wait_until(lambda: listener.events or task.done(), PATIENCE_S, "the first event")
        yield listener, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def cancel_as(who: str, session: str, turn: str, page: httpx.AsyncClient, client: Any) -> None:
    """Stop a turn through one of the front ends."""
    if who == "useChat":
        assert (await page.post(f"/v1/ui/{session}/stop")).json()["matched"] == [turn]
    elif who == "AG-UI":
        assert (await page.post("/v1/agui/stop", json={"threadId": session})).json()["stopped"]
    elif who == "REST":
        assert (await page.post(f"/v1/sessions/{session}/cancel", json={"turnId": turn})).status_code == 200
    else:
        assert (await client.cancel(turn)).matched == (turn,)


@pytest.mark.parametrize("who", ["useChat", "AG-UI", "REST", "Python SDK"])
async def test_a_turn_of_a_page_is_seen_by_all_at_once_and_stopped_from_any(stage: Stage, who: str) -> None:
    session, body = stage.session(), page_message(script(2000, 50, reasoning=2))
    async with (
        stage.connect(session, "user-1", gateway=1) as client,
        http(stage) as page,
        http(stage, 1) as other,
        listening(page, "POST", f"/v1/ui/{session}", json=body) as (own, reading),
    ):
        turn = own.events[0]["messageMetadata"]["turnId"]
        connect = ("POST", "/v1/agui/connect")
        async with listening(other, *connect, json=run_input(session)) as (agui, connecting):
            await wait_until(lambda: turn in [run.run_id for run in client.view.runs], PATIENCE_S)
            seen = client.turn(turn)
            await wait_until(lambda: min(len(own.text), len(agui.text), len(seen.text)) > 20, PATIENCE_S)
            await cancel_as(who, session, turn, page, client)
            await asyncio.wait_for(asyncio.gather(reading, connecting, seen.ended), PATIENCE_S)
    assert seen.status is TurnStatus.CANCELLED
    assert agui.events[-1]["outcome"] == {"type": "cancelled"}
    assert own.events[-1]["messageMetadata"] == {"status": "cancelled"}
    assert {own.text, agui.text, seen.text} == {await stage.text_in_history(session, turn)}


@pytest.mark.parametrize("who", ["useChat", "AG-UI", "Python SDK"])
@pytest.mark.parametrize("what", ["tool", "approval"])
async def test_what_one_asks_another_answers(stage: Stage, who: str, what: str) -> None:
    session = stage.session()
    text = script(4, 0, tool="client") if what == "tool" else script(4, 0, tool="server", approve=1)
    async with stage.connect(session, "user-1") as client, http(stage, 1) as web:
        # Asked by a front end that is not the one that answers.
        if who == "useChat":
            asked = await client.view.send(text)
            turn = turn_id(asked)
            await wait_until(lambda: asked.status is TurnStatus.SUSPENDED, PATIENCE_S)
        else:
            listener = await Listener().read(web, "POST", f"/v1/ui/{session}", json=page_message(text))
            turn = listener.events[0]["messageMetadata"]["turnId"]
            assert listener.events[-1] == {"type": "finish", "finishReason": "tool-calls"}
        await wait_until(lambda: turn in [run.run_id for run in client.view.runs], PATIENCE_S)
        await answer_as(who, what, session, web, client, turn)
        ended = await asyncio.wait_for(client.turn(turn).ended, PATIENCE_S)
        assert ended.status is TurnStatus.COMPLETED
        messages = (await web.get(f"/v1/ui/{session}/messages")).json()
        assert len(messages) == 2
        (called,) = [part for part in messages[1]["parts"] if "toolCallId" in part]
        assert called["state"] == "output-available"
        assert numbered(4) in "".join(part.get("text", "") for part in messages[1]["parts"])


async def answer_as(
    who: str, what: str, session: str, web: httpx.AsyncClient, client: Any, turn: str
) -> None:
    """Answer the open call of a turn through one of the front ends."""
    if who == "Python SDK":
        (call,) = client.turn(turn).calls
        await (call.answer({"sky": "clear"}) if what == "tool" else call.approve())
        return
    last = (await web.get(f"/v1/ui/{session}/messages")).json()[-1]
    (part,) = [part for part in last["parts"] if "toolCallId" in part]
    if who == "useChat":
        given = (
            {"state": "output-available", "output": {"sky": "clear"}}
            if what == "tool"
            else {"state": "approval-responded", "approval": {**part["approval"], "approved": True}}
        )
        last["parts"] = [{**one, **given} if one is part else one for one in last["parts"]]
        answered = await Listener().read(web, "POST", f"/v1/ui/{session}", json={"messages": [last]})
    else:
        fields: dict[str, Any] = {"messages": []}
        call = part["toolCallId"]
        if what == "tool":
            fields["messages"] = [
                {"id": uuid.uuid4().hex, "role": "tool", "toolCallId": call, "content": "clear"}
            ]
        else:
            fields["resume"] = [{"interruptId": part["approval"]["id"], "status": "resolved"}]
        answered = await Listener().read(web, "POST", "/v1/agui", json={**run_input(session), **fields})
    assert answered.status == 200 and answered.text.endswith(numbered(4))


async def test_uim_7_agu_17_a_gateway_is_killed_and_another_continues_the_same_turns(build: Build) -> None:
    stage = await build(gateways=2)
    page_session, thread = stage.session(), stage.session()
    asked = run_input(thread, {"id": uuid.uuid4().hex, "role": "user", "content": script(150, 60)})
    body = page_message(script(150, 60))
    async with http(stage) as first, http(stage, 1) as second:
        async with (
            listening(first, "POST", f"/v1/ui/{page_session}", json=body) as (page, reading),
            listening(first, "POST", "/v1/agui", json=asked) as (client, running),
        ):
            await wait_until(lambda: min(len(page.text), len(client.text)) > 30, PATIENCE_S)
            stage.gateways[0].kill()
            await asyncio.wait_for(asyncio.gather(reading, running), PATIENCE_S)
        assert page.events[-1]["type"] != "finish" and client.events[-1]["type"] != "RUN_FINISHED"
        resumed = await Listener().read(second, "GET", f"/v1/ui/{page_session}/stream")
        assert resumed.text == numbered(150)
        assert resumed.events[0]["messageId"] == page.events[0]["messageId"]
        repeated = await Listener().read(second, "POST", "/v1/agui", json=asked)
        assert repeated.text == numbered(150)
        assert repeated.events[0]["metadata"] == client.events[0]["metadata"]
        assert len((await second.get(f"/v1/ui/{thread}/messages")).json()) == 2


async def test_agu_17_tanstacks_client_goes_on_when_its_gateway_is_killed_and_replaced(build: Build) -> None:
    stage = await build(gateways=2)
    session = stage.session()
    async with Network(stage.gateways[0].port) as network:
        named = {
            "URL": f"{network.url.replace('ws', 'http')}/v1/agui",
            "SESSION": session,
            "KEY": KEY,
            "AI_VERSIONS": "",
        }
        proc = await asyncio.create_subprocess_exec(
            "node", str(FOLDER / "tanstack-run.mjs"), stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **named, "TEXT": script(200, 60, reasoning=2)},
        )  # fmt: skip
        assert proc.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while orjson.loads(await proc.stdout.readline())["length"] < 60:
                    pass
            network.target_port = stage.gateways[1].port
            stage.gateways[0].kill()
            out, _ = await asyncio.wait_for(proc.communicate(), PATIENCE_S)
        finally:
            if proc.returncode is None:
                proc.kill()
                await proc.wait()
    assert orjson.loads(out.splitlines()[-1]) == {"text": numbered(200), "error": ""}
    async with http(stage, 1) as second:
        assert len((await second.get(f"/v1/ui/{session}/messages")).json()) == 2


async def test_uim_8_agu_26_a_worker_is_killed_and_nothing_is_said_twice(build: Build) -> None:
    stage = await build(gateways=1, workers=2, env={"SELFHOST_TRANSPORT_LEASE_MS": "3000"})
    session = stage.session()
    async with http(stage) as web:
        body, connected = page_message(script(120, 60)), {"json": run_input(session)}
        async with (
            listening(web, "POST", f"/v1/ui/{session}", json=body) as (page, reading),
            listening(web, "POST", "/v1/agui/connect", **connected) as (agui, connecting),
        ):
            await wait_until(lambda: min(len(page.text), len(agui.text)) > 30, PATIENCE_S)
            turn = page.events[0]["messageMetadata"]["turnId"]
            record = await stage.room(session).record(turn)
            next(worker for worker in stage.workers if str(record.worker) in worker.log).kill()
            await asyncio.wait_for(asyncio.gather(reading, connecting), 2 * PATIENCE_S)
        assert page.text == agui.text == numbered(120)
        assert page.events[-1] == {"type": "finish", "finishReason": "stop"}
        assert [e["type"] for e in page.events].count("start") == 1


async def test_a_gateway_that_is_stopped_lets_its_streams_go_and_they_continue_elsewhere(
    build: Build,
) -> None:
    stage = await build(gateways=2)
    session, thread = stage.session(), stage.session()
    asked = run_input(thread, {"id": uuid.uuid4().hex, "role": "user", "content": script(200, 60)})
    async with http(stage) as first, http(stage, 1) as second:
        async with (
            listening(first, "POST", f"/v1/ui/{session}", json=page_message(script(200, 60))) as (
                page,
                reading,
            ),
            listening(first, "POST", "/v1/agui", json=asked) as (client, running),
        ):
            await wait_until(lambda: min(len(page.text), len(client.text)) > 30, PATIENCE_S)
            stage.gateways[0].terminate()
            await asyncio.wait_for(asyncio.gather(reading, running), PATIENCE_S)
        # A page is shown words; an AG-UI client finds no terminal, which is a run to be continued.
        assert page.events[-1]["type"] == "error" and "restart" in page.events[-1]["errorText"]
        assert client.events[-1]["type"] not in ("RUN_FINISHED", "RUN_ERROR")
        assert await stage.gateways[0].wait() == 0
        resumed = await Listener().read(second, "GET", f"/v1/ui/{session}/stream")
        continued = await Listener().read(second, "POST", "/v1/agui", json=asked)
        assert resumed.text == continued.text == numbered(200)


async def test_uim_13_a_turn_that_no_one_reads_is_stopped_where_the_namespace_says_so(build: Build) -> None:
    stage = await build(gateways=1, config=SILENT)
    left, kept, ordinary = stage.session("watched"), stage.session("watched"), stage.session()

    async def leave(session: str) -> str:
        async with listening(web, "POST", f"/v1/ui/{session}", json=page_message(script(3000, 50))) as (
            page,
            _,
        ):
            await wait_until(lambda: page.text, PATIENCE_S)
            turn: str = page.events[0]["messageMetadata"]["turnId"]
            return turn

    async with http(stage) as web:
        turns = [await leave(session) for session in (left, kept, ordinary)]
        # A page that was loaded again, in time.
        async with listening(web, "GET", f"/v1/ui/{kept}/stream"):
            assert await stage.logged_end(left, turns[0]) == ["cancelled"]
            for session, turn in ((kept, turns[1]), (ordinary, turns[2])):
                assert (await stage.room(session).record(turn)).status == "active"
        for session in (kept, ordinary):
            await web.post(f"/v1/ui/{session}/stop")


async def test_agu_29_a_queued_run_stays_open_and_starts_when_its_time_comes(stage: Stage) -> None:
    session = stage.session("queue")
    async with http(stage) as web, http(stage, client_id="user-2") as other:
        first = page_message(script(60, 60))
        async with listening(web, "POST", f"/v1/ui/{session}", json=first) as (page, reading):
            second = run_input(session, {"id": "q2", "role": "user", "content": script(5, 0)})
            async with listening(other, "POST", "/v1/agui", json=second) as (client, running):
                assert [event["type"] for event in client.events] == ["RUN_STARTED"] and not running.done()
                await asyncio.wait_for(asyncio.gather(reading, running), PATIENCE_S)
        assert (page.text, client.text) == (numbered(60), numbered(5))
