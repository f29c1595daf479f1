"""Rows HIS, SES, REC, RUL, ERR: what the log and the history promise, and what is shown without the right to them."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
import jwt
import pytest

from selfhost_transport import ClientTransport, TurnStatus
from selfhost_transport.errors import CapabilityError
from selfhost_transport.turns.ui import messages_to_json
from selfhost_transport.wire.message import Message
from tests.e2e.conftest import Build
from tests.e2e.stage import KEY, Stage, script, token_seen, turn_id
from tests.gateway.raw import ACK, CONNECTED, NACK, client
from tests.processes import wait_until

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning"),
]

LOGIN = tuple(KEY.split(":"))


def token(capability: str) -> str:
    """A token with these rights."""
    now = time.time()
    claims = {"iat": now, "exp": now + 600, "x-ably-capability": capability, "x-ably-clientId": "user-1"}
    return jwt.encode(claims, LOGIN[1], algorithm="HS256", headers={"kid": LOGIN[0]})


async def test_ses_5_the_log_is_only_added_to(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        await (await client.view.send("script: say=one")).ended
        before = (await stage.log(session)).entries
        asked, answer = [shown.codec_message_id for shown in client.view.messages]
        await (await client.view.regenerate(answer)).ended
        await (await client.view.edit(asked, "script: say=two")).ended
        endless = await client.view.send(script(5000, 50))
        await token_seen(endless)
        await client.cancel()
        await endless.ended
        after = (await stage.log(session)).entries
        assert after[: len(before)] == before
        assert len(after) > len(before)
        # The view shows the edit, not what was there first.
        texts = [shown.message.text for shown in client.view.messages]
        assert texts[0] == "script: say=two" and "script: say=one" not in texts


async def test_his_7_how_much_is_read_is_not_how_much_is_shown(stage: Stage) -> None:
    session = stage.session("plain")
    async with stage.connect(session) as writer:
        for number in range(60):
            await writer.publish([Message(name="note", data=str(number))])
    async with stage.connect(session, history_limit=0) as reader:
        page = await reader.history(limit=25)
        newest_first = [message.data for message in page.messages]
        assert newest_first == [str(number) for number in reversed(range(35, 60))]
    conversation = stage.session()
    async with stage.connect(conversation) as writer:
        for number in range(8):
            await (await writer.view.send(f"script: say={number}")).ended
    async with stage.connect(conversation, history_limit=0, page_size=100) as reader:
        assert len(await reader.view.load_older(3)) == 3
        assert len(reader.view.messages) == 3


async def test_his_12_reading_forwards_is_complete_and_ordered(stage: Stage) -> None:
    session = stage.session("plain")
    async with httpx.AsyncClient(base_url=stage.gateways[0].url, auth=(LOGIN[0], LOGIN[1])) as http:
        path = f"/channels/{session}/messages"
        serials = [(await http.post(path, json={"data": str(n)})).json()["serials"][0] for n in range(40)]
        found: list[dict[str, Any]] = []
        url: str | None = f"{path}?direction=forwards&limit=7"
        while url:
            reply = await http.get(url)
            found += reply.json()
            if len(found) == 14:
                # What comes while reading is read too, once.
                more = await http.post(path, json={"data": "40"})
                serials.append(more.json()["serials"][0])
            link = re.search(r'<\./messages\?([^>]*)>; rel="next"', reply.headers.get("link", ""))
            url = f"{path}?{link[1]}" if link else None
        assert [message["serial"] for message in found] == serials
        middle = await http.get(f"{path}?direction=forwards&cursor={serials[19]}&limit=1000")
        assert [message["data"] for message in middle.json()] == [str(n) for n in range(20, 41)]


async def test_dev_7_his_8_and_rec_17_without_the_right_to_history(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "user-2") as writer:
        await (await writer.view.send("script: say=before")).ended
        rights = token('{"*":["subscribe","publish"]}')
        live = await ClientTransport.connect(
            stage.gateways[1].url, channel=session, token=rights, client_id="user-1", history_limit=0
        )
        assert live.view.messages == []
        with pytest.raises(CapabilityError, match="history") as caught:
            await live.view.load_older()
        assert caught.value.info.code == 40160
        # What happens from now on is seen all the same.
        turn = await writer.view.send("script: say=after")
        await live.turn(turn_id(turn)).ended
        assert live.turn(turn_id(turn)).text.strip() == "after"
        await live.close()


async def test_rec_16_the_answer_is_readable_after_a_restart(build: Build) -> None:
    stage = await build(gateways=1, workers=1)
    session = stage.session()
    async with stage.connect(session) as writer:
        turn = await writer.view.send(script(50, 0))
        await turn.ended
        shown = messages_to_json(writer.view.messages)
    for process in (stage.gateways.pop(), stage.workers.pop()):
        process.terminate()
        assert await process.wait() == 0
    await stage.add_gateway()
    async with stage.connect(session, "user-2") as reader:
        assert messages_to_json(reader.view.messages) == shown
        assert reader.turn(turn_id(turn)).status is TurnStatus.COMPLETED


async def test_rul_1_and_4_no_rule_is_needed_to_change_messages(stage: Stage) -> None:
    async with client(stage.gateways[0].url, key=KEY, clientId="user-1") as raw:
        assert (await raw.next())["action"] == CONNECTED
        for channel in ("never-heard-of:1", "x", "a:b:c"):
            ack = await raw.publish(channel, {"name": "ai-note", "data": "a"})
            serial = ack["res"][0]["serials"][0]
            for change in ({"action": 5, "data": "b"}, {"action": 1, "data": "c"}, {"action": 2}):
                answer = await raw.publish(channel, {"serial": serial, **change})
                assert answer["action"] == ACK, answer


@pytest.mark.parametrize(
    ("channel", "message", "code", "status"),
    [
        ("plain:e", {"data": "x" * 70_000}, 40009, 400),
        ("plain:e", {"data": "x", "extras": "no map"}, 40032, 400),
        ("plain:e", {"data": 5}, 40013, 400),
        ("plain:e", {"serial": "01700000000000-000@aaaaaaaaaa:000", "action": 5, "data": "x"}, 40400, 404),
        (":bad", {"data": "x"}, 40010, 400),
        ("chat:e", {"name": "ai-run-end", "data": "x"}, 40160, 401),
    ],
)
async def test_err_1_and_ops_6_refusals_have_code_status_and_a_sentence(
    stage: Stage, channel: str, message: dict[str, Any], code: int, status: int
) -> None:
    async with client(stage.gateways[0].url, key=KEY, clientId="user-1") as raw:
        await raw.next()
        refused = await raw.publish(channel, message)
        assert refused["action"] == NACK
        error = refused["error"]
        assert (error["code"], error["statusCode"]) == (code, status)
        assert len(error["message"]) > 10
    async with httpx.AsyncClient(base_url=stage.gateways[0].url, auth=(LOGIN[0], LOGIN[1])) as http:
        if "serial" not in message:
            reply = await http.post(f"/channels/{channel}/messages", json=message)
            assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


async def test_err_5_a_failure_names_session_turn_and_time_in_the_log(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as writer:
        turn = await writer.view.send("script: tokens=5 fail_at=2 always=1")
        await turn.ended
    lines = await wait_until(
        lambda: [line for worker in stage.workers for line in worker.lines if f"turn={turn.turn_id}" in line]
    )
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", lines[0])
    assert f"session={session}" in lines[0]
