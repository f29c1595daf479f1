"""Rows HYD-2 to HYD-9: conversations that an application keeps in a database of its own, with real processes."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from selfhost_transport import ClientTransport, Seed, Turn
from selfhost_transport.client import ConversationMessage
from selfhost_transport.errors import ResumePointLost
from selfhost_transport.exporter import EndedTurn, TurnExporter
from selfhost_transport.settings import load_settings
from selfhost_transport.turns.status import TurnStatus
from tests.e2e.conftest import Build
from tests.e2e.stage import CONFIG, CREW, PATIENCE_S, Stage, each, script, token_seen, turn_id
from tests.processes import wait_until
from tests.promptness import within
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Small pages, so that a history is not read at one go.
PAGING = {"page_size": 5, "history_limit": 1}
LAGS = (0, 1, 5)
TURNS = 6


class Database:
    """What the application keeps: turns in the order in which they ended."""

    def __init__(self) -> None:
        self.turns: list[EndedTurn] = []

    async def keep(self, turn: EndedTurn) -> None:
        """The exporter's function; safe to repeat."""
        if turn.turn_id not in (known.turn_id for known in self.turns):
            self.turns.append(turn)

    def of(self, session: str, lag: int = 0) -> list[EndedTurn]:
        """A session's turns, without the newest ones."""
        found = [turn for turn in self.turns if turn.session == session]
        return found[: len(found) - lag]

    def seed(
        self, session: str, lag: int = 0, *, with_resume_point: bool = False, wire_ids: bool = True
    ) -> Seed:
        """As the application would load it."""
        turns = self.of(session, lag)
        stored = [
            said.to_json() if wire_ids else said.message.to_json() for t in turns for said in t.messages
        ]
        return Seed.from_json(stored, turns[-1].resume_point if turns and with_resume_point else None)

    async def complete(self, session: str, turns: Sequence[Turn]) -> None:
        """Wait until turns are stored."""
        wanted = {turn_id(turn) for turn in turns}
        await wait_until(
            lambda: wanted <= {turn.turn_id for turn in self.of(session)}, PATIENCE_S, "every turn stored"
        )


@asynccontextmanager
async def stored(stage: Stage) -> AsyncIterator[Database]:
    """A database that an exporter fills."""
    database = Database()
    settings = load_settings(redis=stage.stack.redis_url, redis_prefix=stage.stack.redis_prefix)
    exporter = TurnExporter(settings, name="tests")
    running = asyncio.create_task(exporter.run(database.keep))
    async with within(PATIENCE_S):
        await exporter.ready.wait()
    try:
        yield database
    finally:
        exporter.stop()
        await running


async def talked(client: ClientTransport, count: int) -> list[Turn]:
    turns = []
    for number in range(count):
        turns.append(await client.view.send(script(number + 1, 0)))
        await turns[-1].ended
    return turns


def said(messages: Sequence[ConversationMessage]) -> list[dict[str, object]]:
    return [message.message.to_json() for message in messages]


async def with_crew(stage: Stage) -> None:
    """The agents of tests.e2e.crew, beside the scripted model."""
    if len(stage.workers) < 2:
        await stage.add_worker(CREW)


async def test_hyd_2_seed_and_live_tail_have_no_gap_and_no_duplicate_at_the_resume_point(
    stage: Stage,
) -> None:
    session = stage.session()
    async with stored(stage) as database, stage.connect(session) as sender:
        turns = await talked(sender, TURNS)
        await database.complete(session, turns)
        live = await sender.view.send(script(300, 300))
        await token_seen(live)
        for lag in LAGS:
            for wire_ids, with_resume_point in ((True, False), (False, False), (False, True)):
                seed = database.seed(session, lag, wire_ids=wire_ids, with_resume_point=with_resume_point)
                async with stage.connect(session, "user-2", gateway=1, seed=seed, **PAGING) as client:
                    texts = [m.message.text for m in client.view.messages]
                    assert texts[:-1] == [m.message.text for m in sender.view.messages][:-1], (lag, seed)
                    assert numbered(300).startswith(texts[-1]) and not client.view.has_older
        seed = database.seed(session, lag=1, wire_ids=False)
        async with stage.connect(session, "user-2", seed=seed, **PAGING) as client:
            await live.ended
            again = await client.view.send(script(3, 0))
            await again.ended
            await wait_until(lambda: said(client.view.messages) == said(sender.view.messages), PATIENCE_S)
            assert len(client.view.messages) == 2 * (TURNS + 2)
        # The one that was sent behind a seed hangs below the conversation, not beside it.
        async with stage.connect(session, "user-3", history_limit=1000) as reader:
            assert said(reader.view.messages) == said(sender.view.messages)


async def test_hyd_2_less_is_read_than_the_whole_history(stage: Stage) -> None:
    session = stage.session()
    async with stored(stage) as database, stage.connect(session) as sender:
        turns = await talked(sender, TURNS)
        await database.complete(session, turns)
        async with stage.connect(session, "user-2", seed=database.seed(session), **PAGING) as client:
            assert len(client.turns()) < TURNS
            assert said(client.view.messages) == said(sender.view.messages)
            # An old answer is asked for again: what it hangs below is read then.
            first = client.view.messages[1]
            turn = await client.view.regenerate(first.codec_message_id)
            await turn.ended
            assert len(client.turns()) == TURNS + 1
            await wait_until(lambda: said(client.view.messages) == said(sender.view.messages), PATIENCE_S)
            assert client.view.branch_selection(client.view.messages[1].codec_message_id).index == 1


async def test_hyd_3_an_empty_store_is_the_whole_history(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as sender:
        await talked(sender, TURNS)
        async with stage.connect(session, "user-2", seed=[], **PAGING) as client:
            assert said(client.view.messages) == said(sender.view.messages)
    async with stage.connect(stage.session(), seed=[]) as client:
        assert client.view.messages == []


async def test_hyd_4_the_agent_hydrates_alike(stage: Stage, tmp_path: Path) -> None:
    await with_crew(stage)
    session = stage.session("crew")
    async with stored(stage) as database, stage.connect(session) as client:
        # More than one page of the agent's.
        turns = await talked(client, 16)
        await database.complete(session, turns)
        for lag in LAGS:
            file = tmp_path / f"stored-{lag}.json"
            stored_turns = database.of(session, lag)
            messages = [said.to_json() for turn in stored_turns for said in turn.messages]
            if lag == 1:
                messages = [turn["message"] for turn in messages]
            file.write_text(json.dumps({"messages": messages, "resume_point": None}))
            turn = await client.view.send(f"hydrated {file}")
            await turn.ended
            answers = json.loads(turn.text)
            assert answers["seeded"] == answers["whole"] == said(client.view.messages[:-1]), lag
            await database.complete(session, [*turns, turn])


async def test_hyd_6_a_resume_point_older_than_retention_is_an_explicit_error(build: Build) -> None:
    stage = await build(
        gateways=1, config=f'{CONFIG}\n[[namespaces]]\nid = "short"\nagent = "assistant"\nretention = "2s"\n'
    )
    session = stage.session("short")
    async with stored(stage) as database, stage.connect(session) as sender:
        old = await talked(sender, 2)
        await database.complete(session, old)
        room = stage.room(session)

        async def taken() -> bool:
            return not await room.history()

        await wait_until(taken, PATIENCE_S, "retention to take what was said")
        await database.complete(session, await talked(sender, 2))
        # One turn lies between what is stored and what is kept.
        behind = database.seed(session, lag=2)
        with pytest.raises(ResumePointLost) as failure:
            await stage.connect(session, "user-2", seed=behind)
        assert (failure.value.info.code, failure.value.info.status_code) == (90003, 404)
        # With the position it is known that all of what was taken is stored; or the gap is accepted.
        known = database.seed(session, lag=2, with_resume_point=True)
        for seed in (known, Seed(behind.messages, allow_gap=True)):
            async with stage.connect(session, "user-2", seed=seed) as client:
                assert said(client.view.messages) == said(
                    [m for t in database.of(session) for m in t.messages]
                )


async def test_hyd_8_message_ids_of_the_application_are_kept_on_the_wire(stage: Stage) -> None:
    await with_crew(stage)
    session = stage.session("crew")
    async with (
        stored(stage) as database,
        stage.connect(session) as sender,
        stage.connect(session, "user-2") as other,
    ):
        turn = await sender.view.send("own-ids", id="row-17")
        await turn.ended
        await database.complete(session, [turn])
        seen = [m.message.id for m in other.view.messages]
        assert seen == ["row-17", "answer-to-row-17"]
        assert [m.message.id for m in database.of(session)[0].messages] == seen
    async with stage.connect(session, "user-3") as late:
        assert [m.message.id for m in late.view.messages] == seen


async def test_hyd_9_turns_in_flight_beside_stored_ones(stage: Stage) -> None:
    session = stage.session()
    async with stored(stage) as database, stage.connect(session) as sender:
        await database.complete(session, await talked(sender, 2))
        # Two turns that are not stored, begun before a third one that is.
        running = [await sender.view.send(script(400, 200)) for _ in range(2)]
        for turn in running:
            await token_seen(turn)
        quick = await talked(sender, 2)
        await database.complete(session, quick)
        assert all(not turn.status.is_terminal for turn in running)
        async with stage.connect(
            session, "user-2", seed=database.seed(session, with_resume_point=True), **PAGING
        ) as client:
            ids = [m.codec_message_id for m in client.view.messages]
            assert sorted(ids) == sorted({m.codec_message_id for m in sender.view.messages})
            for turn in running:
                await client.turn(turn_id(turn)).ended
            assert {client.turn(turn_id(turn)).text for turn in running} == {numbered(400)}
            assert said(client.view.messages) == said(sender.view.messages)
            assert all(t.status is TurnStatus.COMPLETED for t in client.turns())


async def test_hyd_2_and_9_at_any_moment_of_a_busy_session(stage: Stage) -> None:
    session, chance = stage.session(), random.Random(11)
    async with stored(stage) as database, AsyncExitStack() as exits:
        sender = await exits.enter_async_context(stage.connect(session, history_limit=1000))
        turns: list[Turn] = []
        readers: list[ClientTransport] = []
        for number in range(40):
            turns.append(sender.view.start(script(chance.randrange(1, 60), 60)))
            await asyncio.sleep(chance.uniform(0, 0.1))
            if number % 4 == 3:
                # What is stored at this moment, however far behind that is.
                seed = database.seed(
                    session, chance.randrange(3), with_resume_point=True, wire_ids=number % 8 == 3
                )
                joining = stage.connect(session, f"reader-{number}", gateway=1, seed=seed, **PAGING)
                readers.append(await exits.enter_async_context(joining))
        # Readers know of stored turns by their messages alone.
        await each([turn.ended for turn in turns])
        for client in (sender, *readers):
            await client.wait_for_turn(all=True)
        whole = {m.message.id: m.message.text for m in sender.view.messages}
        assert len(whole) == 2 * len(turns)
        for reader in readers:
            found = [m.message.id for m in reader.view.messages]
            assert sorted(found) == sorted(whole)
            assert {m.message.id: m.message.text for m in reader.view.messages} == whole
