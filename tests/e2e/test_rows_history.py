"""Rows HIS: reading what was said before."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from selfhost_transport import TurnStatus
from selfhost_transport.client import HistoryPage
from selfhost_transport.turns.ui import messages_to_json
from selfhost_transport.wire.message import Message
from tests.e2e.stage import KEY, Stage, script, token_seen
from tests.processes import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = 250


async def test_his_1_and_3_pages_oldest_first(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        for number in range(MESSAGES // 2):
            await (await client.view.send(f"script: say=answer-{number}")).ended
        everything = [shown.message.text for shown in client.view.messages]
        assert len(everything) == MESSAGES
    async with stage.connect(session, gateway=1, history_limit=0) as late:
        assert late.view.messages == [] and late.view.has_older
        collected: list[str] = []
        while late.view.has_older:
            page = await late.view.load_older(30)
            assert page and len(page) <= 30
            collected = [shown.message.text for shown in page] + collected
            assert [shown.message.text for shown in late.view.messages] == collected
        assert collected == everything
        assert await late.view.load_older(30) == []
        assert [info.status for info in late.turns()] == [TurnStatus.COMPLETED] * (MESSAGES // 2)
    # HIS-3: two at once are one after the other; HIS-7: how much is read is not how much is shown.
    async with stage.connect(session, history_limit=0, page_size=40) as late:
        pages = await asyncio.gather(late.view.load_older(10), late.view.load_older(10))
        shown = [[item.message.text for item in page] for page in pages]
        assert shown[1] + shown[0] == everything[-20:]


async def test_his_2_history_joins_live_without_a_gap(stage: Stage) -> None:
    session, total = stage.session("plain"), 200
    async with stage.connect(session) as writer:

        async def write() -> None:
            for number in range(total):
                await writer.publish([Message(name="note", data=str(number))])
                await asyncio.sleep(0.01)

        writing = asyncio.create_task(write())
        await asyncio.sleep(0.5)
        async with stage.connect(session, "user-2", gateway=1, history_limit=0) as reader:
            live: list[str] = []
            reader.on("entry", lambda entry: live.append(str(entry.message.data)))
            attached_at = reader.position
            past: list[str] = []
            page: HistoryPage | None = await reader.history(limit=7)
            while page is not None:
                past = [str(m.data) for m in reversed(page.messages)] + past
                page = await reader.older_history(page)
            await writing
            await wait_until(lambda: live and live[-1] == str(total - 1))
        assert attached_at
        assert live == [str(number) for number in range(int(live[0]), total)]
        overlap = int(live[0])
        assert past[:overlap] == [str(number) for number in range(overlap)]
        assert past == [str(number) for number in range(len(past))] and len(past) >= overlap


async def test_his_4_and_5_branches_and_cancelled_turns_survive(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        first = await client.view.send("script: say=original")
        await first.ended
        prompt, answer = (shown.codec_message_id for shown in client.view.messages)
        again = await client.view.regenerate(answer)
        await again.ended
        edited = await client.view.edit(prompt, "script: say=edited")
        await edited.ended
        cancelled = await client.view.send(script(500, 100))
        await token_seen(cancelled, 5)
        await cancelled.cancel()
        await cancelled.ended
        before = messages_to_json(client.view.messages)
        assert [shown.message.text for shown in client.view.messages[:2]] == ["script: say=edited", "edited"]
        selection = client.view.branch_selection(edited.input_codec_message_id or "")
        assert selection.has_siblings and (len(selection.siblings), selection.index) == (2, 1)
    async with stage.connect(session, "user-2", gateway=1) as late:
        assert messages_to_json(late.view.messages) == before
        assert late.view.messages[-1].message.text == cancelled.text
        assert late.turn(cancelled.turn_id or "").status is TurnStatus.CANCELLED
        late.view.select(edited.input_codec_message_id or "", 0)
        shown = [item.message.text for item in late.view.messages]
        assert shown == ["script: say=original", "original"]
        answers = late.view.branch_selection(late.view.messages[1].codec_message_id)
        assert [item.message.text for item in answers.siblings if item] == ["original", "original"]


async def test_his_10_only_redis(stage: Stage) -> None:
    """Nothing but the gateways, the worker and Redis runs; a new process has the conversation from there."""
    session = stage.session()
    async with stage.connect(session) as client:
        await (await client.view.send("script: say=kept")).ended
    gateway = await stage.add_gateway()
    async with stage.connect(session, gateway=len(stage.gateways) - 1) as late:
        assert [shown.message.text for shown in late.view.messages] == ["script: say=kept", "kept"]
    stage.gateways.remove(gateway)
    gateway.terminate()


async def test_a_late_device_sends_below_the_newest_message_of_a_long_conversation(stage: Stage) -> None:
    """P14: a page of the history is not the conversation, whatever lies between its messages."""
    session, turns = stage.session(), 12
    async with stage.connect(session, "user-1") as first:
        for number in range(turns):
            await (await first.view.send(f"script: reasoning=2 tool=server say=answer-{number}")).ended
            await first.publish([Message(name="note", data="between") for _ in range(40)])
        everything = [item.codec_message_id for item in first.view.messages]
        assert len(everything) == 2 * turns
    url = stage.gateways[1].url.replace("ws", "http", 1)
    async with httpx.AsyncClient(base_url=url, auth=httpx.BasicAuth(*KEY.split(":"))) as http:
        listed = (await http.get(f"/v1/sessions/{session}/messages", params={"limit": 5})).json()
        assert [item["codecMessageId"] for item in listed["messages"]] == everything[-5:]
        assert listed["truncated"]
    for loaded in (0, 1, 7, 100):
        async with stage.connect(session, "user-2", gateway=1, history_limit=loaded, page_size=20) as late:
            shown = [item.codec_message_id for item in late.view.messages]
            assert shown == everything[len(everything) - min(loaded, len(everything)) :]
            turn = await late.view.send("script: echo_context=1")
            await turn.ended
            assert len(json.loads(turn.text)) == len(everything) + 1
            everything += [item.codec_message_id for item in turn.messages]
