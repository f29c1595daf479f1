"""Rows STR: how an answer reaches those who read it."""

from __future__ import annotations

import httpx
import pytest
import redis

from selfhost_transport import TurnStatus
from selfhost_transport.client import Entry
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.chunks import TextDelta
from selfhost_transport.wire.actions import MessageAction
from tests.e2e.conftest import Build
from tests.e2e.crew import UNSAFE
from tests.e2e.stage import (
    CREW,
    KEY,
    Stage,
    assert_exact,
    scaled,
    script,
    streamed,
    token_seen,
    turn_id,
)
from tests.processes import wait_until
from tests.promptness import Stopwatch, TooSlow, assert_quick, prompt
from tests.worker.session import header, numbered, run_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


def appends(entries: list[Entry], turn: str) -> list[Entry]:
    """The deliveries that brought more text of a turn."""
    return [
        entry
        for entry in entries
        if run_of(entry.message) == turn
        and entry.message.action is MessageAction.APPEND
        and entry.message.data
    ]


async def test_str_1_increasing_prefixes(stage: Stage) -> None:
    async with stage.connect(stage.session()) as client:
        turn = await client.view.send(script(50, 100))
        seen = ""
        async for part in turn.stream:
            if isinstance(part, TextDelta):
                seen += part.delta
                assert numbered(50).startswith(seen) and turn.text.startswith(seen)
        assert seen == numbered(50)
        outputs = await stage.room(client.channel).outputs(turn_id(turn))
        assert len([output for output in outputs if output.kind == "text"]) == 1


async def test_str_2_a_later_reader_gets_one_assembled_message(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(5000, 0))
        await turn.ended
    text = numbered(5000)
    async with httpx.AsyncClient(trust_env=False, auth=tuple(KEY.split(":"))) as http:  # type: ignore[arg-type]
        answer = await http.get(f"{stage.gateways[1].url}/channels/{session}/messages")
    assert len(answer.content) < 2 * len(text)
    assert [item["data"] for item in answer.json() if item.get("data")].count(text) == 1
    async with stage.connect(session, "user-2") as late:
        entries: list[Entry] = []
        late.on("entry", entries.append)
        assert late.view.messages[-1].message.text == text and entries == []


async def test_str_3_the_message_says_how_it_stands(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        live: dict[str, list[str]] = {}

        def note(entry: Entry) -> None:
            status = header(entry.message, h.STATUS)
            turn = run_of(entry.message)
            if status and turn and live.setdefault(turn, [""])[-1] != status:
                live[turn].append(status)

        client.on("entry", note)
        complete = await client.view.send(script(5, 0))
        cancelled = await client.view.send(script(99, 50))
        failed = await client.view.send(script(20, 100, fail_at=5, always=1))
        await token_seen(cancelled)
        await cancelled.cancel()
        await client.wait_for_turn()
        room = stage.room(session)
        for turn, status in ((complete, "complete"), (cancelled, "cancelled"), (failed, "cancelled")):
            assert live[turn_id(turn)] == ["", "streaming", status]
            stored = [o.status for o in await room.outputs(turn_id(turn)) if o.kind == "text"]
            assert stored == [status]
        assert failed.status is TurnStatus.FAILED


async def test_str_4_5_and_16_sources_errors_and_unsafe_text(build: Build) -> None:
    stage = await build(workers=0)
    await stage.add_worker(CREW)
    session = stage.session("crew")
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        turn = await client.view.send("sources")
        await turn.ended
        answers = [message.message.text for message in turn.messages[1:]]
        assert answers[:4] == ["list ", "generator ", "async ", "partial "]
        assert answers[4] == "complete:NoneType complete:NoneType complete:NoneType error:ValueError"
        failed = await client.view.send(script(20, 100, fail_at=10, always=1))
        await failed.ended
        assert failed.error is not None and "token 10" in failed.error.message
        assert_exact(failed, 10)
        unsafe = await client.view.send("unsafe")
        text = await streamed(other.turn(turn_id(unsafe)))
        assert text == UNSAFE
        await unsafe.ended
        assert (unsafe.status, unsafe.text) == (TurnStatus.COMPLETED, UNSAFE)
        assert await stage.text_in_history(session, turn_id(unsafe)) == UNSAFE


@prompt
async def test_str_7_first_token_at_once_then_a_frame_per_window(stage: Stage) -> None:
    async with stage.connect(stage.session()) as client:
        for _ in range(3):
            await (await client.view.send(script(1, 0))).ended
        entries: list[Entry] = []
        client.on("entry", entries.append)
        firsts: list[float] = []
        for _ in range(3):
            watch = Stopwatch()
            turn = client.view.start(script(200, 200))
            await wait_until(lambda turn=turn: turn.text)  # type: ignore[misc]
            firsts.append(watch.seconds)
            await turn.ended
            assert_exact(turn, 200)
            # 200 tokens at 200/s last a second: at most 25 windows of 40 ms, and the first token.
            frames = len(appends(entries, turn_id(turn)))
            assert frames <= 2 + max(1.0, watch.seconds) / 0.04
            if frames < 5:
                raise TooSlow(f"{frames} frames of 200 tokens")
        # Send, queue, take and first token together; a loaded machine is given some room.
        assert_quick(min(firsts), 0.1)


async def test_str_8_and_9_without_a_window_every_token_is_a_frame(build: Build) -> None:
    stage = await build(env={f"{ENV_PREFIX}ROLLUP_WINDOW_MS": "0"})
    async with stage.connect(stage.session()) as client:
        entries: list[Entry] = []
        client.on("entry", entries.append)
        tokens = scaled(5000, 2000)
        turn = await client.view.send(script(tokens, 1000))
        await turn.ended
        assert_exact(turn, tokens)
        assert len(appends(entries, turn_id(turn))) >= tokens - 1


async def test_str_10_closing_the_tab(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        turn = turn_id(await client.view.send(script(60, 60)))
        await token_seen(client.turn(turn))
    assert await stage.logged_end(session, turn) == ["complete"]
    async with stage.connect(session, gateway=1) as again:
        assert_exact(again.turn(turn), 60)
        assert [m.message.role for m in again.view.messages] == ["user", "assistant"]


async def test_str_13_order_under_pipelining(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as one, stage.connect(session, "user-2", gateway=1) as two:
        turn = await one.view.send(script(2000, 1000))
        assert await streamed(two.turn(turn_id(turn))) == numbered(2000)
        await turn.ended
        assert_exact(turn, 2000)


async def test_str_18_refused_appends_never_leave_an_open_bubble(
    build: Build, own_redis: EmbeddedRedis
) -> None:
    stage = await build(own_redis.url, gateways=1, env={f"{ENV_PREFIX}LEASE_MS": "1500"})
    session = stage.session()
    async with stage.connect(session) as client:
        turn = await client.view.send(script(20, 10))
        await token_seen(turn)
        with redis.Redis.from_url(own_redis.url) as admin:
            before = _refused(admin)
            admin.config_set("maxmemory", "1")
            await wait_until(lambda: _refused(admin) > before, 5)
            admin.config_set("maxmemory", "0")
        await turn.ended
        if turn.status is TurnStatus.COMPLETED:
            assert_exact(turn, 20)
        else:
            assert turn.status is TurnStatus.FAILED
        assert (await stage.log(session)).ends(turn_id(turn)) in (["complete"], ["error"])
        outputs = await stage.room(session).outputs(turn_id(turn))
        last = max(output.step_start or "" for output in outputs)
        assert "streaming" not in [output.status for output in outputs if output.step_start == last]
        after = await client.view.send(script(5, 0))
        await after.ended
        assert_exact(after, 5)


def _refused(admin: redis.Redis) -> int:
    """Script calls that Redis has refused or broken off. Its error statistics name memory from version 7 on only."""
    calls = admin.info("commandstats").get("cmdstat_evalsha", {})
    return int(calls.get("failed_calls", 0)) + int(calls.get("rejected_calls", 0))


async def test_json_clients_are_served_alike(stage: Stage) -> None:
    session = stage.session()
    async with (
        stage.connect(session, format="json") as one,
        stage.connect(session, "user-2", gateway=1) as two,
    ):
        turn = await one.view.send(script(30, 100, reasoning=3))
        assert await streamed(two.turn(turn_id(turn))) == numbered(30)
        await turn.ended
        assert_exact(turn, 30)
        assert one.view.messages == two.view.messages
        result = await one.cancel(turn.turn_id)
        assert result.already_ended == (turn.turn_id,)
        async with stage.connect(session, "user-3", format="json") as late:
            assert late.view.messages == one.view.messages
