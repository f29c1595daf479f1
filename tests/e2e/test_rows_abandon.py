"""Row PRE-10: turns that no one watches go on, or are cancelled after a time, as the namespace says."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from selfhost_transport import TurnStatus
from selfhost_transport.turns import headers as h
from tests.e2e.conftest import Build
from tests.e2e.stage import CONFIG, KEY, PATIENCE_S, Stage, script, token_seen, turn_id
from tests.processes import wait_until
from tests.worker.session import header

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY_NAME, KEY_SECRET = KEY.split(":", 1)
AFTER_S = 1.0
BOUND = CONFIG + '\n[[namespaces]]\nid = "watched"\nagent = "assistant"\nabandon_after = "1s"\n'


async def left_running(stage: Stage, session: str, tokens: int = 5000) -> str:
    """A turn whose sender has gone."""
    async with stage.connect(session, "alice") as alice:
        turn = await alice.view.send(script(tokens, 50))
        await token_seen(turn, 2)
    return turn_id(turn)


async def test_pre_10_no_one_watching_cancels_where_the_namespace_says_so(build: Build) -> None:
    stage = await build(gateways=2, config=BOUND)
    alone, kept, watched, streamed = (stage.session(n) for n in ("watched", "chat", "watched", "watched"))
    async with (
        stage.connect(watched, "bob", gateway=1) as bob,
        httpx.AsyncClient(base_url=stage.gateways[0].url, auth=(KEY_NAME, KEY_SECRET), timeout=None) as http,
        http.stream("GET", f"/v1/sessions/{streamed}/events") as events,
    ):
        assert events.status_code == 200
        began = time.monotonic()
        turns = await asyncio.gather(*(left_running(stage, s) for s in (alone, kept, watched, streamed)))
        assert await stage.logged_end(alone, turns[0]) == ["cancelled"]
        took = time.monotonic() - began
        assert took > AFTER_S
        for session, turn in zip((kept, watched, streamed), turns[1:], strict=True):
            assert (await stage.room(session).record(turn)).status == "active"
        assert bob.turn(turns[2]).status is TurnStatus.ACTIVE
    # Its watchers have gone now; where nothing was said the turn goes on.
    assert await stage.logged_end(watched, turns[2]) == ["cancelled"]
    assert (await stage.room(kept).record(turns[1])).status == "active"
    await stage.room(kept).cancel(turns[1])
    (cancel,) = [m for _, m in (await stage.log(alone)).created(h.AI_CANCEL)]
    assert (header(cancel, h.RUN_ID), cancel.client_id) == (turns[0], None)


async def test_pre_10_who_comes_back_in_time_finds_the_turn_running(build: Build) -> None:
    stage = await build(gateways=1, config=BOUND)
    session = stage.session("watched")
    turn = await left_running(stage, session, tokens=150)
    async with stage.connect(session, "alice") as alice:
        seen = alice.turn(turn)
        await wait_until(lambda: seen.status.is_terminal, PATIENCE_S)
        assert seen.status is TurnStatus.COMPLETED
