"""Rows TOL, HIL, STE, and those of CAN and INT with hooks: people and turns that exist, through gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from selfhost_transport import ClientTransport, Turn, TurnStatus
from selfhost_transport.errors import CancelDenied, Conflict, TurnEnded
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from tests.e2e.conftest import Build, _prefix
from tests.e2e.stage import CONFIG, PATIENCE_S, Stage, script, token_seen, turn_id
from tests.processes import wait_until
from tests.promptness import Stopwatch, prompt, within
from tests.worker.session import header, numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

AGENTS = ("immediate", "limited", "guarded", "open", "three-calls")
PEOPLE = "tests.e2e.participants:worker"
BOUND = CONFIG + "".join(f'\n[[namespaces]]\nid = "{agent}"\nagent = "{agent}"\n' for agent in AGENTS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    with _prefix(redis_server.url) as prefix:
        folder = tmp_path_factory.mktemp("people")
        running = await Stage.make(redis_server.url, prefix, folder, workers=0, config=BOUND)
        await running.add_worker(PEOPLE)
        yield running
        await running.close()


def tools(turn: Turn) -> list[ui.ToolPart]:
    """The tool parts of a turn as its client shows them."""
    return [p for m in turn.messages for p in m.message.parts if isinstance(p, ui.ToolPart)]


async def suspended(turn: Turn) -> tuple[str, str]:
    """Wait until a turn waits for people: the message and the id of its newest call."""
    await wait_until(lambda: turn.status is TurnStatus.SUSPENDED, PATIENCE_S, f"{turn} to be suspended")
    calls = [
        (m.codec_message_id, p.tool_call_id)
        for m in turn.messages
        for p in m.message.parts
        if isinstance(p, ui.ToolPart)
    ]
    return calls[-1]


async def test_tol_1_2_and_3_tools_on_every_device(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "alice") as alice, stage.connect(session, "bob", gateway=1) as bob:
        server = await alice.view.send(script(3, 0, tool="server"))
        await server.ended
        client = await alice.view.send(script(3, 0, tool="client"))
        seen = bob.turn(turn_id(client))
        message_id, call_id = await suspended(seen)
        # TOL-3: the answer is all it takes.
        await seen.answer_tool(message_id, call_id, {"picked": 1})
        await each_ended(client, seen)
        assert [(t.state, t.output) for t in tools(client)] == [("output-available", {"picked": 1})]
        assert tools(seen) == tools(client) and client.text == numbered(3)
        assert [t.state for t in tools(bob.turn(turn_id(server)))] == ["output-available"]
    names = [m.name for _, m in (await stage.log(session)).of_turn(turn_id(client))]
    assert [n for n in names if n in h.RUN_LIFECYCLE] == [
        h.AI_RUN_START, h.AI_RUN_SUSPEND, h.AI_RUN_RESUME, h.AI_RUN_END,
    ]  # fmt: skip
    # TOL-12: a late joiner sees the same.
    async with stage.connect(session, "carol") as carol:
        await wait_until(lambda: bool(carol.view.messages), PATIENCE_S)
        assert tools(carol.turn(turn_id(client))) == tools(client)


async def each_ended(*turns: Turn) -> None:
    """Wait for the same turn on several devices."""
    async with within(PATIENCE_S):
        for turn in turns:
            await turn.ended


async def test_tol_5_and_trn_16_three_calls_two_clients(stage: Stage) -> None:
    session = stage.session("three-calls")
    async with stage.connect(session, "alice") as alice, stage.connect(session, "bob", gateway=1) as bob:
        turn = await alice.view.send("go")
        seen = bob.turn(turn_id(turn))
        await suspended(turn)
        message_id, _ = await suspended(seen)
        await seen.answer_tool(message_id, "call-2", 2)
        await turn.answer_tool(message_id, "call-0", 0)
        await seen.answer_tool(message_id, "call-1", 1)
        await turn.ended
        assert turn.text == "call-2 by bob, call-0 by alice, call-1 by bob"
    ((_, resume),) = [(p, m) for p, m in (await stage.log(session)).created(h.AI_RUN_RESUME)]
    assert (header(resume, h.RUN_CLIENT_ID), header(resume, h.INPUT_CLIENT_ID)) == ("alice", "bob")


async def test_tol_7_and_hil_2_one_of_two_answers_wins(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "alice") as alice, stage.connect(session, "bob", gateway=1) as bob:
        for _ in range(10):
            turn = await alice.view.send(script(1, 0, tool="server", approve=1))
            seen = bob.turn(turn_id(turn))
            call = await suspended(turn)
            await suspended(seen)
            answers = await asyncio.gather(
                turn.approve(*call), seen.approve(*call, False), return_exceptions=True
            )
            (lost,) = [answer for answer in answers if isinstance(answer, BaseException)]
            assert isinstance(lost, Conflict)
            assert lost.info.detail is not None and lost.info.detail["reason"] == "already_resolved"
            await turn.ended
    log = await stage.log(session)
    assert len(log.created(h.AI_RUN_RESUME)) == 10


async def test_int_11_hil_8_and_trn_7_late_answers(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "alice") as alice:
        turn = await alice.view.send(script(3, 0, tool="client"))
        call = await suspended(turn)
        await turn.cancel()
        await turn.ended
        assert turn.status is TurnStatus.CANCELLED
        before = len((await stage.log(session)).entries)
        with pytest.raises(TurnEnded):
            await turn.answer_tool(*call, "late")
        with pytest.raises(TurnEnded):
            await turn.approve(*call)
        with pytest.raises(TurnEnded):
            await turn.steer("late")
        assert len((await stage.log(session)).entries) == before


async def test_ste_1_2_4_and_10_steers(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "alice") as alice, stage.connect(session, "bob", gateway=1) as bob:
        turn = await alice.view.send(script(20, 40))
        await token_seen(turn)
        seen = bob.turn(turn_id(turn))
        await seen.started
        steer = await seen.steer("script: say=birds", id="s1")
        assert steer.serial is not None
        again = await seen.steer("script: say=birds", id="s1")
        assert again.serial == steer.serial
        async with within(PATIENCE_S):
            outcome = await steer.outcome
        assert (outcome.consumed, outcome.status) == (True, TurnStatus.COMPLETED)
        await turn.ended
        assert turn.text.endswith("birds")
    (reported,) = [m for _, m in (await stage.log(session)).of_turn(turn_id(turn)) if m.name == h.AI_INPUT]
    assert reported.client_id == "bob"
    async with stage.connect(session, "carol") as carol:
        await wait_until(lambda: bool(carol.view.messages), PATIENCE_S)
        shown = [m.message.text for m in carol.view.messages]
        assert shown[-2:] == ["script: say=birds", "birds"]


async def test_ste_7_and_9(stage: Stage) -> None:
    session = stage.session("immediate")
    async with stage.connect(session, "alice") as alice:
        turn = await alice.view.send(script(20, 0, hang_at=5))
        await token_seen(turn, 5)
        await turn.steer("script: say=now")
        await turn.ended
        assert turn.status is TurnStatus.COMPLETED and turn.text == numbered(5) + "now"
    session = stage.session()
    async with stage.connect(session, "alice") as alice:
        turn = await alice.view.send(script(20, 0, hang_at=5))
        await token_seen(turn, 5)
        steer, _ = await asyncio.gather(turn.steer("too late"), turn.cancel())
        async with within(PATIENCE_S):
            outcome = await steer.outcome
        assert (outcome.consumed, outcome.status) == (False, TurnStatus.CANCELLED)


async def started(client: ClientTransport, text: str) -> Turn:
    turn = await client.view.send(text)
    await token_seen(turn)
    return turn


@prompt
async def test_can_7_8_10_and_int_9_who_may_cancel(stage: Stage) -> None:
    session = stage.session("guarded")
    async with stage.connect(session, "alice") as alice, stage.connect(session, "bob", gateway=1) as bob:
        turn = await started(alice, script(20, 0, hang_at=5))
        seen = bob.turn(turn_id(turn))
        await token_seen(seen)
        watch = Stopwatch()
        with pytest.raises(CancelDenied) as denied:
            await seen.cancel()
        watch.assert_below(0.5)
        assert denied.value.info.detail == {"reason": "cancel_denied", "turns": [turn.turn_id]}
        await wait_until(lambda: turn.status is TurnStatus.ACTIVE, PATIENCE_S)
        shown: list[TurnStatus] = []
        bob.on("turn", lambda info: shown.append(info.shown_status))
        reply = await turn.cancel()
        assert reply.matched == (turn.turn_id,)
        await each_ended(turn, seen)
        assert list(dict.fromkeys(shown)) == [TurnStatus.CANCELLING, TurnStatus.CANCELLED]
        assert turn.messages[-1].message.text == "[cancelled]"
        assert turn.messages[-1].message.metadata == {"note": True}


@pytest.mark.parametrize("requester", ["raise", "hang"])
async def test_can_9_a_broken_hook_fails_closed_where_declared(stage: Stage, requester: str) -> None:
    session = stage.session("guarded")
    async with stage.connect(session, "alice") as alice, stage.connect(session, requester) as other:
        turn = await started(alice, script(20, 0, hang_at=5))
        await token_seen(other.turn(turn_id(turn)))
        with pytest.raises(CancelDenied):
            await other.cancel(all=True)
        assert (await stage.room(session).record(turn_id(turn))).status == "active"
        await turn.cancel()


@prompt
async def test_can_9_and_11_a_silent_hook_fails_open_where_declared(stage: Stage) -> None:
    session = stage.session("open")
    async with stage.connect(session, "alice") as alice:
        turn = await started(alice, script(20, 0, hang_at=5))
        watch = Stopwatch()
        result = await turn.cancel()
        # The cancel took effect, and the requester learns that no one decided about it.
        assert result.matched == result.hook_failed == (turn.turn_id,) and result.denied == ()
        watch.assert_below(2.0)
        await turn.ended
        assert turn.status is TurnStatus.CANCELLED


@prompt
async def test_trn_23_a_deadline(stage: Stage) -> None:
    session = stage.session("limited")
    async with stage.connect(session, "alice") as alice:
        watch = Stopwatch()
        turn = await alice.view.send(script(20, 0, hang_at=5))
        await turn.ended
        assert watch.seconds > 0.8
        watch.assert_below(3.0)
        assert turn.status is TurnStatus.FAILED
        assert turn.error is not None and "deadline" in turn.error.message


async def test_dbl_2_and_8_queue_positions_on_every_device(stage: Stage) -> None:
    session = stage.session("queue")
    async with stage.connect(session, "alice") as alice, stage.connect(session, "bob", gateway=1) as bob:
        first = await started(alice, script(20, 0, hang_at=5))
        waiting = [await alice.view.send(script(3, 0)) for _ in range(2)]

        def positions(client: ClientTransport) -> list[int | None]:
            infos = [client.turn(turn_id(turn)).info for turn in waiting]
            return [info.queue_position if info else None for info in infos]

        await wait_until(lambda: positions(alice) == positions(bob) == [1, 2], PATIENCE_S)
        async with stage.connect(session, "carol") as carol:
            await wait_until(lambda: positions(carol) == [1, 2], PATIENCE_S)
        await waiting[0].cancel()
        await wait_until(lambda: positions(bob) == [None, 1], PATIENCE_S)
        await first.cancel()
        await waiting[1].ended
        assert positions(bob) == [None, None] or await gone(bob, waiting[1])
        assert waiting[1].text == numbered(3)


async def gone(client: ClientTransport, turn: Turn) -> bool:
    """A device hears of it a moment later than another."""
    async with within(PATIENCE_S):
        await client.turn(turn_id(turn)).ended
    return True


async def test_hil_3_an_approval_survives_a_restart_of_everything(
    build: Build, own_redis: EmbeddedRedis
) -> None:
    stage = await build(own_redis.url, gateways=1, workers=1)
    session = stage.session()
    async with stage.connect(session, "alice") as alice:
        turn = await alice.view.send(script(3, 0, tool="server", approve=1))
        call = await suspended(turn)
    port = int(stage.gateways[0].url.rpartition(":")[2])
    for process in (*stage.gateways, *stage.workers):
        process.kill()
        await process.wait()
    own_redis.stop()
    own_redis.start()
    await stage.add_gateway(port)
    await stage.add_worker()
    async with stage.connect(session, "bob", gateway=-1) as bob:
        again = bob.turn(turn_id(turn))
        await again.approve(*call)
        await again.ended
        assert again.status is TurnStatus.COMPLETED
        assert [t.state for t in tools(again)] == ["output-available"]


async def test_rec_8_continue_repeats_no_token(build: Build) -> None:
    config = CONFIG.replace(
        'id = "*"\nagent = "assistant"', 'id = "*"\nagent = "assistant"\non_crash = "continue"'
    )
    stage = await build(gateways=1, workers=2, config=config, env={f"{ENV_PREFIX}LEASE_MS": "3000"})
    session = stage.session()
    async with stage.connect(session, "alice") as alice:
        turn = await alice.view.send(script(40, 100, crash_at=20))
        await turn.ended
        assert turn.status is TurnStatus.COMPLETED and turn.text == numbered(40)
        record = await stage.room(session).record(turn_id(turn))
        assert record.attempts == 2


async def test_trn_17_the_handle_across_a_suspension(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "alice") as alice:
        turn = await alice.view.send(script(3, 0, tool="client", reasoning=2))
        async with within(PATIENCE_S):
            assert await turn.started is turn
        call = await suspended(turn)
        assert turn.turn_id is not None and turn.error is None
        await turn.answer_tool(*call, "here")
        await turn.ended
        assert (turn.status, turn.text) == (TurnStatus.COMPLETED, numbered(3))
        roles = [m.message.role for m in turn.messages]
        assert roles == ["user", "assistant", "assistant"]
        with_tool, answer = turn.messages[1].message, turn.messages[2].message
        assert [type(part) for part in with_tool.parts] == [ui.StepStartPart, ui.ReasoningPart, ui.ToolPart]
        assert answer.text == numbered(3)


async def test_hil_9_a_new_message_while_an_approval_is_pending(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "alice") as alice:
        first = await alice.view.send(script(3, 0, tool="server", approve=1))
        call = await suspended(first)
        second = await alice.view.send("script: echo_context=1")
        await second.ended
        assert '"state":"output-error"' in second.text
        assert '"state":"approval-requested"' not in second.text
        assert first.status is TurnStatus.SUSPENDED
        await first.approve(*call)
        assert (await first.ended).status is TurnStatus.COMPLETED
