"""One session with the published clients of all front ends at once: each sees the turn, may end it, and may answer it."""

from __future__ import annotations

import asyncio
import os

import pytest

from selfhost_transport import TurnStatus
from selfhost_transport.settings import ENV_PREFIX
from tests.e2e.peer import peer
from tests.e2e.stage import PATIENCE_S, Stage, script, turn_id
from tests.processes import wait_until
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

PYTHON = "python"
CLIENTS = ("chat", "agui", "responses", "ably", PYTHON)
LONG = os.environ.get(f"{ENV_PREFIX}LONG") == "1"
# Approvals by the others are in test_front_ends.py, too.
ALLOWING = CLIENTS if LONG else ("responses", "ably")
ANSWERS = [*((one, "tool") for one in CLIENTS), *((one, "approval") for one in ALLOWING)]


# Who asks, and who ends the turn: another one each time.
@pytest.mark.parametrize(("asks", "ends"), [*zip(CLIENTS, (*CLIENTS[1:], CLIENTS[0]), strict=True)])
async def test_all_see_a_turn_at_the_same_time_and_each_can_end_it(
    stage: Stage, asks: str, ends: str
) -> None:
    session, text = stage.session(), script(2000, 50, reasoning=2)
    async with (
        stage.connect(session, "user-1") as client,
        peer(stage, session, "front-end-peer.mjs") as others,
    ):
        if asks == PYTHON:
            turn = turn_id(await client.view.send(text))
        else:
            others.ask(do="ask", by=asks, text=text)
            turn = (await others.heard("asked"))["asked"]
        await wait_until(lambda: turn in [run.run_id for run in client.view.runs], PATIENCE_S)
        seen = client.turn(turn)
        others.ask(do="follow", turn=turn, by=asks)
        assert set((await others.heard("seen"))["seen"]) == {*CLIENTS} - {PYTHON}
        await wait_until(lambda: len(seen.text) > 20, PATIENCE_S)
        if ends == PYTHON:
            assert (await client.cancel(turn)).matched == (turn,)
        else:
            others.ask(do="cancel", turn=turn, by=ends)
            await others.heard("cancelled")
        await asyncio.wait_for(seen.ended, PATIENCE_S)
        others.ask(do="shown", turn=turn)
        shown = (await others.heard("shown"))["shown"]
        assert seen.status is TurnStatus.CANCELLED
        stored = await stage.text_in_history(session, turn)
        assert {name: one["status"] for name, one in shown.items()} == dict.fromkeys(shown, "cancelled")
        assert {one["text"] for one in shown.values()} == {seen.text} == {stored}


@pytest.mark.parametrize(("answers", "what"), ANSWERS)
async def test_what_one_asks_each_other_can_answer(stage: Stage, answers: str, what: str) -> None:
    session = stage.session()
    text = script(4, 0, tool="client") if what == "tool" else script(4, 0, tool="server", approve=1)
    async with (
        stage.connect(session, "user-1") as client,
        peer(stage, session, "front-end-peer.mjs") as others,
    ):
        asks = CLIENTS[CLIENTS.index(answers) - 1]
        if asks == PYTHON:
            turn = turn_id(await client.view.send(text))
        else:
            others.ask(do="ask", by=asks, text=text)
            turn = (await others.heard("asked"))["asked"]
        await wait_until(lambda: turn in [run.run_id for run in client.view.runs], PATIENCE_S)
        seen = client.turn(turn)
        await wait_until(lambda: seen.status is TurnStatus.SUSPENDED, PATIENCE_S)
        if answers == PYTHON:
            (call,) = seen.calls
            await (call.answer({"sky": "clear"}) if what == "tool" else call.approve())
        else:
            others.ask(do="answer", turn=turn, by=answers, what=what)
            await others.heard("answered")
        assert (await asyncio.wait_for(seen.ended, PATIENCE_S)).status is TurnStatus.COMPLETED
        assert (await stage.text_in_history(session, turn)).endswith(numbered(4))
        assert len([run for run in client.view.runs if run.run_id != turn]) == 0
