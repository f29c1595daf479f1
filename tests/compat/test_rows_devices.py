"""Rows DEV, REC, SES, OPS: several devices and formats in one session, and what a drop does to each."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from selfhost_transport import ClientTransport, TurnStatus
from selfhost_transport.client import Discontinuity
from selfhost_transport.errors import InvalidArgument, SessionClosed
from selfhost_transport.turns.ui import messages_to_json
from selfhost_transport.wire.message import Format
from tests.e2e.conftest import Build
from tests.e2e.proxy import Network
from tests.e2e.stage import (
    KEY,
    PATIENCE_S,
    Stage,
    assert_exact,
    script,
    token_seen,
    tokens_of,
    turn_id,
)
from tests.processes import wait_until
from tests.promptness import within
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")
DAY_MS = 86_400_000


@dataclass
class Device:
    """A client that keeps what it receives."""

    client: ClientTransport
    reported: list[tuple[str, str | None, Any]] = field(default_factory=list)
    gaps: list[Discontinuity] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client.on(
            "entry",
            lambda entry: self.reported.append((entry.position, entry.message.name, entry.message.data)),
        )
        self.client.on("discontinuity", self.gaps.append)


async def test_dev_1_every_device_sees_the_same_in_one_order(stage: Stage) -> None:
    session = stage.session()
    async with (
        stage.connect(session, format=Format.JSON) as laptop,
        stage.connect(session, gateway=1) as phone,
        stage.connect(session, "user-2", gateway=1, format=Format.JSON) as other,
    ):
        devices = [Device(client) for client in (laptop, phone, other)]
        first = await laptop.view.send(script(100, 200))
        second = await other.view.send(script(2000, 100))
        await token_seen(second)
        await phone.cancel(second.turn_id)
        await first.ended
        await wait_until(
            lambda: len({len(device.reported) for device in devices}) == 1 and not laptop.active_turns
        )
        histories = [[position for position, *_ in device.reported] for device in devices]
        assert histories[0] == sorted(histories[0]) and len(set(histories[0])) == len(histories[0])
        assert devices[0].reported == devices[1].reported == devices[2].reported
        assert messages_to_json(laptop.view.messages) == messages_to_json(other.view.messages)


async def test_dev_2_and_4_own_and_observed_turns_can_be_distinguished(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as owner:
        turn = await owner.view.send(script(200, 200))
        await token_seen(turn, 50)
        async with stage.connect(session, "user-2", gateway=1) as observer:
            observed = observer.turn(turn_id(turn))
            assert (turn.own, observed.own, observed.owner) == (True, False, "user-1")
            # DEV-4: the late joiner has the question, and the answer as far as it is.
            assert [shown.message.role for shown in observer.view.messages] == ["user", "assistant"]
            assert tokens_of(observed.text) >= 50
            await observed.ended
            assert_exact(observed, 200)


async def test_dev_8_and_rec_2_a_device_that_was_away_changes_nothing_for_others(stage: Stage) -> None:
    session = stage.session()
    async with (
        Network(stage.gateways[0].port) as network,
        stage.connect(session, "user-2", gateway=1) as other,
    ):
        device = Device(other)
        away = await ClientTransport.connect(network.url, key=KEY, client_id="user-1", channel=session)
        turn = await away.view.send(script(100, 100))
        await token_seen(turn, 5)
        network.cut()
        # The rest of that turn, and a whole one, while it is away.
        await other.turn(turn_id(turn)).ended
        await (await other.view.send(script(30, 0))).ended
        assert device.gaps == []
        assert_exact(other.turn(turn_id(turn)), 100)
        network.mend()
        await wait_until(lambda: len(away.view.messages) == 4, PATIENCE_S)
        await away.wait_for_turn(all=True)
        assert messages_to_json(away.view.messages) == messages_to_json(other.view.messages)
        assert [info.status for info in away.turns()] == [TurnStatus.COMPLETED] * 2
        await away.close()


async def let_a_day_pass(stage: Stage, session: str) -> set[str]:
    """What Redis forgets of a session within 24 hours, forgotten now. Returns the kinds of keys that are gone."""
    prefix = stage.stack.redis_prefix
    gone = set()
    for key in await stage.store.command("KEYS", f"{prefix}:*:{session}"):
        if 0 < await stage.store.command("PTTL", key) <= DAY_MS:
            await stage.store.command("DEL", key)
            gone.add(key.decode().partition("}:")[2][:2])
    return gone


async def test_rec_2_a_device_that_was_away_for_a_day_shows_what_the_others_show(stage: Stage) -> None:
    session = stage.session()
    async with (
        Network(stage.gateways[0].port) as network,
        stage.connect(session, "user-2", gateway=1) as other,
    ):
        away = await ClientTransport.connect(network.url, key=KEY, client_id="user-1", channel=session)
        device = Device(away)
        first = await away.view.send(script(100, 100))
        await token_seen(first, 5)
        network.cut()
        await other.turn(turn_id(first)).ended
        await (await other.view.send(script(30, 0))).ended
        cancelled = await other.view.send(script(500, 100))
        await token_seen(cancelled, 5)
        await other.cancel(cancelled.turn_id)
        assert {"l:", "t:"} <= await let_a_day_pass(stage, session)
        network.mend()
        await wait_until(lambda: len(away.view.messages) == 6, PATIENCE_S)
        await away.wait_for_turn(all=True)
        assert messages_to_json(away.view.messages) == messages_to_json(other.view.messages)
        assert sorted(info.status for info in away.turns()) == sorted(info.status for info in other.turns())
        # It learned that it cannot be sent everything, and read everything instead (P7).
        assert len(device.gaps) == 1
        await (await away.view.send(script(10, 0))).ended
        await wait_until(lambda: len(other.view.messages) == 8 and not other.active_turns)
        assert messages_to_json(away.view.messages) == messages_to_json(other.view.messages)
        await away.close()


async def test_dev_12_a_regenerate_is_seen_by_all_and_moves_only_views_that_did_not_choose(
    stage: Stage,
) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        await (await one.view.send("script: say=first")).ended
        await wait_until(lambda: len(two.view.messages) == 2 and not two.active_turns)
        answer = one.view.messages[1].codec_message_id
        await (await one.view.regenerate(answer)).ended

        def alternatives() -> int:
            shown = two.view.messages[1:]  # for a moment the new answer has not begun
            return len(two.view.branch_selection(shown[0].codec_message_id).siblings) if shown else 0

        await wait_until(lambda: alternatives() == 2)
        newest = two.view.messages[1].codec_message_id
        assert newest != answer
        two.view.select(newest, 0)
        chosen = messages_to_json(two.view.messages)
        await (await one.view.regenerate(newest)).ended
        await wait_until(lambda: len(two.view.branch_selection(answer).siblings) == 3)
        assert messages_to_json(two.view.messages) == chosen
        assert one.view.messages[1].codec_message_id not in (answer, newest)


async def test_rec_13_events_and_posts_where_websockets_are_blocked(stage: Stage) -> None:
    session = stage.session()
    name, secret = KEY.split(":")
    gateway = stage.gateways[1].url
    async with httpx.AsyncClient(base_url=gateway, auth=(name, secret), timeout=20) as http, within(30):
        last, text = "", ""

        async def read_until(wanted: str) -> None:
            """Chunks of the answer, from where the last reading ended."""
            nonlocal last, text
            headers = {"Last-Event-ID": last} if last else {}
            fields: dict[str, str] = {}
            async with http.stream("GET", f"/v1/sessions/{session}/events", headers=headers) as response:
                async for line in response.aiter_lines():
                    key, _, value = line.partition(": ")
                    if line:
                        fields[key] = value
                        continue
                    last = fields.pop("id", last)
                    for message in json.loads(fields.pop("data", "{}")).get("messages", []):
                        text = _grown(text, message)
                    if text.startswith(wanted):
                        return

        await http.get(f"/v1/sessions/{session}/turns")
        reading = asyncio.create_task(read_until(numbered(40)))
        started = await http.post(f"/v1/sessions/{session}/turns", json={"text": script(100, 100)})
        assert started.status_code == 202
        await reading
        await read_until(numbered(100))
        assert text == numbered(100)
        endless = await http.post(f"/v1/sessions/{session}/turns", json={"text": script(5000, 50)})
        cancelled = await http.post(
            f"/v1/sessions/{session}/cancel", json={"turnId": endless.json()["turnId"]}
        )
        assert cancelled.json()["matched"] == [endless.json()["turnId"]]
        assert await stage.logged_end(session, endless.json()["turnId"]) == ["cancelled"]


def _grown(text: str, message: dict[str, Any]) -> str:
    """The text of the only stream, after one message of an event."""
    headers = message.get("extras", {}).get("ai", {}).get("transport", {})
    if message.get("name") != "ai-output" or headers.get("stream") != "true":
        return text
    data = str(message.get("data") or "")
    return text + data if message["action"] == 5 else data


async def test_ses_9_opening_is_idempotent_and_what_is_too_early_or_late_is_reported(stage: Stage) -> None:
    client = ClientTransport(stage.gateways[0].url, channel=stage.session(), key=KEY, client_id="user-1")
    with pytest.raises(InvalidArgument):
        _ = client.view
    assert await client.open() is client
    connection = client.connection_id
    assert await client.open() is client
    assert client.connection_id == connection
    await client.close()
    with pytest.raises(SessionClosed) as caught:
        await client.view.send("too late")
    assert caught.value.info.code == 104004


async def test_ops_3_three_gateways_and_no_sticky_sessions(build: Build) -> None:
    stage = await build(gateways=3, workers=1)
    session = stage.session()
    clients = [await stage.connect(session, f"user-{number}", gateway=number % 3) for number in range(6)]
    turns = [await client.view.send(script(40, 100)) for client in clients]
    for client in clients:
        await client.wait_for_turn(all=True)
        for turn in turns:
            assert_exact(client.turn(turn_id(turn)), 40)
    trees = [messages_to_json(client.view.messages) for client in clients]
    assert all(tree == trees[0] for tree in trees)
    for client in clients:
        await client.close()
