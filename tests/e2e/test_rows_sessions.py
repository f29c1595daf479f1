"""Rows SES: what a session is to all who takes part in it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from contextlib import AsyncExitStack

import pytest

from selfhost_transport import Turn, TurnStatus
from selfhost_transport.client import Entry
from selfhost_transport.turns.ui import messages_to_json
from selfhost_transport.wire.message import Message
from tests.e2e.conftest import Build
from tests.e2e.crew import AGENTS
from tests.e2e.stage import (
    CREW,
    Stage,
    assert_exact,
    each,
    position_of,
    scaled,
    script,
    streamed,
    token_seen,
    tokens_of,
    turn_id,
)
from tests.processes import wait_until
from tests.promptness import TooSlow, prompt
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")


def digest(items: object) -> str:
    """A hash of anything with a faithful `repr`."""
    return hashlib.sha256(repr(items).encode()).hexdigest()


async def test_ses_1_made_on_first_use(stage: Stage) -> None:
    async with stage.connect("a-name-no one-has-heard-of " + stage.session()) as client:
        turn = await client.view.send(script(5, 0))
        assert await streamed(turn) == numbered(5)


async def test_ses_2_outlives_every_participant(build: Build) -> None:
    stage = await build()
    session = stage.session()
    async with stage.connect(session) as client:
        for text in (script(20, 0), "hello", script(5, 0, reasoning=3)):
            await (await client.view.send(text)).ended
        cancelled = await client.view.send(script(100, 50))
        await token_seen(cancelled)
        await cancelled.cancel()
        await cancelled.ended
        shown = json.dumps(messages_to_json(client.view.messages))
    before = digest(await stage.room(session).history()), digest((await stage.log(session)).entries)
    for proc in (*stage.gateways, *stage.workers):
        proc.terminate()
    await each([proc.wait() for proc in (*stage.gateways, *stage.workers)])
    stage.gateways.clear()
    await stage.add_gateway()
    await stage.add_worker()
    after = digest(await stage.room(session).history()), digest((await stage.log(session)).entries)
    assert before == after
    async with stage.connect(session) as client:
        assert json.dumps(messages_to_json(client.view.messages)) == shown


async def test_ses_3_one_order_foreveryone(stage: Stage) -> None:
    session, watchers, turns = stage.session(), 20, 10
    async with AsyncExitStack() as exits:
        clients = [
            await exits.enter_async_context(stage.connect(session, f"user-{n}", gateway=n % 2))
            for n in range(watchers)
        ]
        entries: list[list[Entry]] = [[] for _ in clients]
        for client, received in zip(clients, entries, strict=True):
            client.on("entry", received.append)
        sent = await asyncio.gather(*(clients[n].view.send(script(30, 60)) for n in range(turns)))
        await each([client.wait_for_turn(all=True) for client in clients])
        last = max(received[-1].position for received in entries)
        await wait_until(lambda: all(received[-1].position == last for received in entries))
        for turn in sent:
            assert_exact(turn, 30)
        # SES-4: and all make the same of it.
        trees = {json.dumps(messages_to_json(client.view.messages)) for client in clients}
    seen = [[entry.position for entry in received] for received in entries]
    assert len({digest(positions) for positions in seen}) == 1
    assert seen[0] == sorted(seen[0]) and len(seen[0]) == len(set(seen[0]))
    log = await stage.log(session)
    assert len({entry.position for entry in log.entries}) == len(
        {position_of(position) for position in seen[0]}
    )
    assert len(trees) == 1


async def test_ses_6_any_participant_at_any_time(stage: Stage) -> None:
    async with stage.connect(session := stage.session()) as one, stage.connect(session, "user-2") as two:
        first = await one.view.send(script(200, 100))
        await token_seen(first, 3)
        second = await two.view.send(script(20, 100))
        await token_seen(second, 3)
        await two.cancel(first.turn_id)
        await two.wait_for_turn(all=True)
        assert_exact(second, 20)
        await wait_until(lambda: first.status is TurnStatus.CANCELLED)


@prompt
async def test_ses_8_many_turns_and_agents_on_one_session(build: Build) -> None:
    stage = await build(workers=0)
    await stage.add_worker(CREW)
    session, count = stage.session("crew"), 50
    room = stage.room(session)
    async with stage.connect(session) as client:
        ids = await asyncio.gather(
            *(
                room.send(script(30, 30), agent=AGENTS[number % len(AGENTS)], client_id=f"user-{number}")
                for number in range(count)
            )
        )
        turns = [client.turn(turn) for turn in ids]
        await each([turn.ended for turn in turns])
        for number, turn in enumerate(turns):
            assert_exact(turn, 30)
            assert (turn.agent, turn.owner) == (AGENTS[number % len(AGENTS)], f"user-{number}")
    log = await stage.log(session)
    spans = [log.content(turn) for turn in ids]
    if max(span[0] for span in spans) > min(span[-1] for span in spans):
        raise TooSlow("not all ran at once")


async def test_ses_10_closing_a_client_is_local(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client:
        turn = turn_id(await client.view.send(script(30, 50)))
    assert await stage.logged_end(session, turn) == ["complete"]
    assert await stage.text_in_history(session, turn) == numbered(30)


async def test_ses_11_join_at_any_time(stage: Stage) -> None:
    session, chance, joins = stage.session(), random.Random(7), scaled(50, 25)
    async with stage.connect(session) as client:
        turn = await client.view.send(script(300, 100))
        other = await client.view.send(script(280, 100))
        await token_seen(turn)

        async def join(number: int) -> None:
            await asyncio.sleep(chance.uniform(0, 2.8))
            async with stage.connect(session, f"late-{number}", gateway=number % 2) as late:
                watched = late.turn(turn_id(turn))
                so_far = tokens_of(watched.text)
                assert await streamed(watched) == watched.text
                assert_exact(watched, 300)
                assert so_far > 0
                again = late.turn(turn_id(other))
                await again.ended
                assert_exact(again, 280)
                assert len(late.view.messages) == 4

        await each([join(number) for number in range(joins)])


async def test_ses_14_no_participant_needs_another(build: Build) -> None:
    stage = await build(gateways=1)
    session = stage.session()
    async with stage.connect(session) as client:
        first = turn_id(await client.view.send(script(20, 100)))
        second = turn_id(await client.view.send(script(50, 50)))
    # No clients: the turn completes. No gateway: the worker finishes.
    assert await stage.logged_end(session, first) == ["complete"]
    stage.gateways.pop().kill()
    assert await stage.logged_end(session, second) == ["complete"]
    assert await stage.text_in_history(session, second) == numbered(50)
    # No agents: the conversation is there, and people can go on talking.
    stage.workers.pop().kill()
    await stage.add_gateway()
    async with stage.connect(session) as one, stage.connect(session, "user-2") as two:
        assert len(one.view.messages) == 4
        heard: list[Entry] = []
        two.on("entry", heard.append)
        await one.publish([Message(name="note", data="still here")])
        await wait_until(lambda: [entry.message.data for entry in heard] == ["still here"])
        assert len(one.view.messages) == 4


async def test_opt_1_and_2_own_messages_show_at_once_and_once(stage: Stage) -> None:
    session = stage.session()
    async with stage.connect(session) as client, stage.connect(session, "user-2", gateway=1) as other:
        promoted: list[str] = []
        client.on("promoted", lambda event: promoted.append(event.codec_message_id))
        turns: list[Turn] = [client.view.start(text) for text in (script(3, 0), script(4, 0))]
        assert [m.message.text for m in client.view.messages] == [script(3, 0), script(4, 0)]
        nodes = [node.serial for node in client.tree.nodes()]
        assert nodes == [None, None] and promoted == []
        for turn in turns:
            await turn.ended
        assert promoted == [turn.input_codec_message_id for turn in turns]
        await other.wait_for_turn(all=True)
        await wait_until(lambda: len(other.view.messages) == 4)
        assert messages_to_json(client.view.messages) == messages_to_json(other.view.messages)
