"""Rows on agents that run in processes of their own: context, retries, tools, what several messages belong to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfhost_transport import TurnStatus
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.ui import ToolPart
from tests.e2e.conftest import Build
from tests.e2e.stage import (
    CREW,
    PATIENCE_S,
    Stage,
    assert_exact,
    position_of,
    script,
    token_seen,
    turn_id,
)
from tests.processes import wait_until
from tests.promptness import prompt, within

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def with_crew(stage: Stage) -> None:
    """The agents of tests.e2e.crew, beside the scripted model."""
    if len(stage.workers) < 2:
        await stage.add_worker(CREW)


async def test_trn_9_and_12_another_attempt_and_another_worker(build: Build) -> None:
    stage = await build(gateways=1, env={f"{ENV_PREFIX}RETRY_ERRORS": "true"})
    session = stage.session()
    async with stage.connect(session) as client:
        failing = await client.view.send(script(20, 0, fail_at=10))
        assert (await failing.ended).status is TurnStatus.COMPLETED
        assert failing.info is not None and failing.info.steps[0].attempt_count == 2
        assert_exact(failing, 20)
        assert len(client.view.messages) == 2
        assert (await stage.log(session)).ends(turn_id(failing)) == ["complete"]
        # Nothing is kept in a worker: another one knows what was said.
        stage.workers[0].terminate()
        assert await stage.workers[0].wait() == 0
        await stage.add_worker()
        following = await client.view.send("script: echo_context=1")
        await following.ended
    context = json.loads(following.text)
    texts = [[part["text"] for part in said["parts"] if part["type"] == "text"] for said in context]
    assert texts == [[script(20, 0, fail_at=10)], [failing.text], ["script: echo_context=1"]]


async def test_trn_15_a_turn_is_continued_under_one_id(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        turn = await client.view.send("script: tool=client tokens=3")
        one = turn_id(turn)
        await wait_until(lambda: other.turn(one).status is TurnStatus.SUSPENDED, PATIENCE_S, "the suspension")
        message = other.view.messages[-1]
        (call,) = [part for part in message.message.parts if isinstance(part, ToolPart)]
        await other.turn(one).answer_tool(message.codec_message_id, call.tool_call_id, "it rains")
        assert (await turn.ended).status is TurnStatus.COMPLETED
        # TRN-16, TRN-17: the owner stays, and the handle has everything that was said.
        assert turn.owner == "user-1" and other.turn(one).owner == "user-1"
        assert [m.message.role for m in turn.messages] == [m.message.role for m in client.view.messages]
        assert turn.text == "0 1 2 "
    log = await stage.log(session)
    names = [str(m.name) for _, m in log.of_turn(one) if m.name in h.RUN_LIFECYCLE]
    assert names == [h.AI_RUN_START, h.AI_RUN_SUSPEND, h.AI_RUN_RESUME, h.AI_RUN_END]


async def test_trn_22_several_messages_are_one_turn(stage: Stage) -> None:
    await with_crew(stage)
    session = stage.session("crew")
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        turn = await client.view.send("two-pipes")
        await other.turn(turn_id(turn)).ended
        answers = [m for m in other.view.messages if m.message.role == h.ROLE_ASSISTANT]
        assert [m.message.text for m in answers] == ["first I plan", "then I answer"]
        assert {other.turn_of(m.codec_message_id) for m in answers} == {turn_id(turn)}
        assert len(other.turns()) == 1


@prompt
async def test_int_12_13_and_can_23_a_running_tool_is_aborted_and_writes_nothing(
    stage: Stage, tmp_path: Path
) -> None:
    await with_crew(stage)
    session, reported = stage.session("crew"), tmp_path / "tool"
    async with stage.connect(session) as client:
        turn = await client.view.send(f"stubborn-tool {reported}")
        await wait_until(lambda: len(client.view.messages) == 2, PATIENCE_S, "the call")
        result = await client.cancel()
        async with within(0.25):
            await wait_until(reported.exists, what="the tool to be cancelled")
        assert (await turn.ended).status is TurnStatus.CANCELLED
        await wait_until(
            lambda: reported.read_text() == "returned", PATIENCE_S, "the tool to return all the same"
        )
        # The model is not given a call without a result.
        following = await client.view.send("script: echo_context=1")
        await following.ended
        context = json.loads(following.text)
        states = [part["state"] for said in context for part in said["parts"] if "toolCallId" in part]
        assert states == ["output-error"]
        # A worker that went on would still be able to take turns.
        await token_seen(await client.view.send(script(3, 0)))
    log = await stage.log(session)
    assert all(position < position_of(result.position) for position in log.content(turn_id(turn)))
    assert log.ends(turn_id(turn)) == ["cancelled"]
