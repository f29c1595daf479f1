"""Rows TOL, HIL and COT that a whole deployment decides: late answers, rights, sizes, what is there after a reload."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from selfhost_transport import Turn, TurnStatus
from selfhost_transport.errors import CapabilityError, TransportError, TurnEnded
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.retention import Retention
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs, ui
from selfhost_transport.wire.message import Message
from tests.e2e.conftest import Build, _prefix
from tests.e2e.stage import CONFIG, PATIENCE_S, Stage, script, turn_id
from tests.processes import wait_until
from tests.worker.session import header, numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

AGENTS = ("three-calls", "librarian", "folding")
PEOPLE = "tests.e2e.participants:worker"
BOUND = CONFIG + "".join(f'\n[[namespaces]]\nid = "{agent}"\nagent = "{agent}"\n' for agent in AGENTS)
BOUND += '\n[[namespaces]]\nid = "brief"\nagent = "assistant"\nretention = "1s"\n'
SIZE_LIMIT = 65_536


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    with _prefix(redis_server.url) as prefix:
        running = await Stage.make(
            redis_server.url, prefix, tmp_path_factory.mktemp("tools"), workers=0, config=BOUND
        )
        await running.add_worker(PEOPLE)
        yield running
        await running.close()


def calls_of(turn: Turn) -> list[tuple[str, ui.ToolPart]]:
    """The tool calls of a turn, with the messages that they are in."""
    return [
        (item.codec_message_id, part)
        for item in turn.messages
        for part in item.message.parts
        if isinstance(part, ui.ToolPart)
    ]


async def waiting(turn: Turn) -> tuple[str, str]:
    """Wait until a turn waits for people; where its newest call is."""
    await wait_until(
        lambda: turn.status is TurnStatus.SUSPENDED and calls_of(turn), PATIENCE_S, f"{turn} to be suspended"
    )
    message_id, part = calls_of(turn)[-1]
    return message_id, part.tool_call_id


async def test_tol_10_a_late_result_continues_the_same_turn(build: Build) -> None:
    stage = await build(gateways=1)
    session = stage.session()
    async with stage.connect(session, "alice") as alice:
        turn = await alice.view.send(script(3, 0, tool="client"))
        call = await waiting(turn)
    # What ten minutes do, at once: what expires is gone, the live log is trimmed, and so is the worker of then.
    await let_pass(stage, session, 600_000)
    stage.workers[0].kill()
    await stage.add_worker()
    async with stage.connect(session, "bob") as bob:
        seen = bob.turn(turn_id(turn))
        await wait_until(lambda: seen.status is TurnStatus.SUSPENDED, PATIENCE_S)
        await seen.answer_tool(*call, "late")
        await seen.ended
        assert (seen.status, seen.text) == (TurnStatus.COMPLETED, numbered(3))
        assert [part.output for _, part in calls_of(seen)] == ["late"]
    history = await stage.room(session).history()
    names = [m.name for m in history if header(m, h.RUN_ID) == turn.turn_id and m.name in h.RUN_LIFECYCLE]
    assert names == [h.AI_RUN_START, h.AI_RUN_SUSPEND, h.AI_RUN_RESUME, h.AI_RUN_END]


async def let_pass(stage: Stage, session: str, ms: int) -> None:
    """Remove the keys of a session that expire within so many milliseconds, and every entry of its live log."""
    trimmed = 0
    for key in await stage.store.command("KEYS", f"{stage.stack.redis_prefix}:*:{session}*"):
        if 0 < await stage.store.command("PTTL", key) <= ms:
            await stage.store.command("DEL", key)
        elif key.endswith(f"l:{session}".encode()):
            trimmed += await stage.store.command("XTRIM", key, "MAXLEN", "0")
    assert trimmed > 0


async def test_tol_11_a_cancel_leaves_no_call_to_run(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "alice") as alice, stage.connect(session, "bob", gateway=1) as bob:
        turn = await alice.view.send(script(3, 0, tool="client"))
        seen = bob.turn(turn_id(turn))
        call = await waiting(seen)
        await turn.cancel()
        await seen.ended
        # What a device asks before it runs a client tool: the turn is not one that waits any more.
        assert seen.status is TurnStatus.CANCELLED
        with pytest.raises(TurnEnded):
            await seen.answer_tool(*call, "too late")
        assert [part.state for _, part in calls_of(seen)] == ["input-available"]
    async with stage.connect(session, "carol") as carol:
        assert carol.turn(turn_id(turn)).status is TurnStatus.CANCELLED


async def test_tol_12_and_cot_5_tools_and_reasoning_after_a_reload(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session, "alice") as alice:
        done = await alice.view.send(script(3, 0, tool="server", reasoning=4))
        await done.ended
        failed = await alice.view.send(script(3, 0, tool="client"))
        message_id, call_id = await waiting(failed)
        error = inputs.tool_result_error(
            message_id, turn_id(failed), call_id, "no camera", event_id=inputs.new_id(), client_id="alice"
        )
        await alice.publish([error])
        await failed.ended
        pending = await alice.view.send(script(3, 0, tool="client"))
        await waiting(pending)
        shown = [item.to_json() for item in alice.view.messages]
    async with stage.connect(session, "bob", gateway=1) as bob:
        assert [item.to_json() for item in bob.view.messages] == shown
        states = [
            part.state for turn in (done, failed, pending) for _, part in calls_of(bob.turn(turn_id(turn)))
        ]
        assert states == ["output-available", "output-error", "input-available"]
        thoughts = [
            p.text
            for p in bob.turn(turn_id(done)).messages[-1].message.parts
            if isinstance(p, ui.ReasoningPart)
        ]
        assert thoughts == ["r0 r1 r2 r3 "]
        await bob.cancel(turn_id(pending))


async def test_tol_14_large_results(stage: Stage) -> None:
    session = stage.session("librarian")
    async with stage.connect(session, "alice") as alice, stage.connect(session, "bob", gateway=1) as bob:
        turn = await alice.view.send(str(1 << 20))
        seen = bob.turn(turn_id(turn))
        await seen.ended
        assert seen.text == str(1 << 20)
        assert [len(str(part.output)) for _, part in calls_of(seen)] == [1 << 20]
    async with stage.connect(stage.session(), "alice") as alice:
        turn = await alice.view.send(script(3, 0, tool="client"))
        call = await waiting(turn)
        with pytest.raises(TransportError) as refused:
            await turn.answer_tool(*call, "x" * SIZE_LIMIT)
        assert refused.value.info.code == 40009
        # The turn still waits: a smaller result, or a reference to the large one, goes on with it.
        await turn.answer_tool(*call, {"url": "https://example.com/result"})
        await turn.ended


async def test_several_answers_in_one_publish_and_one_of_them_came_too_late(stage: Stage) -> None:
    session = stage.session("three-calls")
    async with stage.connect(session, "alice") as alice, stage.connect(session, "bob", gateway=1) as bob:
        turn = await alice.view.send("go")
        seen = bob.turn(turn_id(turn))
        message_id, _ = await waiting(seen)
        await turn.answer_tool(message_id, "call-0", "first")

        def result(call_id: str) -> Message:
            return inputs.tool_result(
                message_id, turn_id(turn), call_id, "bob's", event_id=inputs.new_id(), client_id="bob"
            )

        reply = await bob.publish([result("call-0"), result("call-1")])
        # As for anything that is not published: no serial; what won has one.
        lost, won = reply.serials
        assert lost is None and won is not None
        await seen.answer_tool(message_id, "call-2", "last")
        await seen.ended
        assert seen.text == "call-0 by alice, call-1 by bob, call-2 by bob"
        outputs = {part.tool_call_id: part.output for _, part in calls_of(seen)}
        assert outputs == {"call-0": "first", "call-1": "bob's", "call-2": "last"}


async def test_hil_6_what_waits_for_an_approval_outlives_retention(stage: Stage) -> None:
    session = stage.session("brief")
    room = stage.room(session)
    async with stage.connect(session, "alice") as alice:
        await (await alice.view.send(script(2, 0))).ended
        turn = await alice.view.send(script(3, 0, tool="server", approve=1))
        call = await waiting(turn)
        retention = Retention(
            room.turns.redis, room.turns.keys, StoreOptions(retention_of=lambda name: 1_000)
        )

        async def first_is_gone() -> bool:
            await retention.sweep()
            history = await room.history()
            return not any(header(m, h.RUN_ID) not in (None, turn.turn_id) for m in history)

        await wait_until(first_is_gone, PATIENCE_S, "retention to take the older turn")
    async with stage.connect(session, "bob", gateway=1) as bob:
        seen = bob.turn(turn_id(turn))
        assert await waiting(seen) == call
        await seen.approve(*call)
        await seen.ended
        assert (seen.status, seen.text) == (TurnStatus.COMPLETED, numbered(3))


async def test_hil_10_any_client_that_may_publish_may_approve(stage: Stage) -> None:
    session = stage.session()
    async with (
        stage.connect(session, "alice") as alice,
        stage.connect(session, "bot", gateway=1) as bot,
        stage.connect(session, "watcher", key="test.reader:reader") as watcher,
    ):
        turn = await alice.view.send(script(3, 0, tool="server", approve=1))
        watched = watcher.turn(turn_id(turn))
        call = await waiting(watched)
        with pytest.raises(CapabilityError):
            await watched.approve(*call)
        assert watched.status is TurnStatus.SUSPENDED
        await waiting(bot.turn(turn_id(turn)))
        await bot.turn(turn_id(turn)).approve(*call)
        await watched.ended
        assert watched.text == numbered(3)


async def test_cot_7_a_model_without_reasoning_of_its_own(stage: Stage) -> None:
    async with stage.connect(stage.session("folding"), "alice") as alice:
        turn = await alice.view.send("well?")
        await turn.ended
        assert turn.text == "<think>hm</think> yes"
        assert not [p for p in turn.messages[-1].message.parts if isinstance(p, ui.ReasoningPart)]
