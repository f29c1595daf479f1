"""What an agent is given of a conversation: exactly what a reader of the whole session makes of it, read chunk by chunk."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_worker.agent import conversation as conversation_module
from agent_worker.agent.conversation import Conversation
from selfhost_transport.errors import ConversationTooLong
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import history as history_module
from selfhost_transport.store.entries import NO_OPERATION, Ref
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns.context import context_for_input
from selfhost_transport.turns.inputs import InputIds, regenerate, user_message
from selfhost_transport.turns.lifecycle import RunReason
from selfhost_transport.turns.prompt import PartialAnswers, PromptMessage, build_prompt
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import parse_position
from tests.store.talks import AGENT, USER, Talk

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
SEEDS = range(300 if LONG else 8)
TURNS = 5_000 if LONG else 300
LONGEST_PAUSE_S = 0.02
MOST_KEPT = 0.4  # of what a tree of the whole session keeps


@pytest.fixture
async def sessions(redis_url: str, redis_prefix: str) -> AsyncIterator[SessionStore]:
    connection = RedisConnection(redis_url)
    yield SessionStore(connection, Keyspace(redis_prefix, buckets=4))
    await connection.close()


async def whole_tree(sessions: SessionStore, *, session: str = "talk") -> SessionTree:
    tree, cursor = SessionTree(session), None
    while True:
        page = await sessions.history.page(session, Query(limit=1000, cursor=cursor))
        for message in reversed(page.messages):
            tree.apply(message)
        if (cursor := page.next_cursor) is None:
            return tree


async def asked(talk: Talk, messages: list[Message]) -> Conversation:
    """A question that a worker has just been given."""
    published = await talk.sessions.publish(talk.session, messages)
    context = context_for_input(messages[-1], session=talk.session, agent_client_id=AGENT)
    lease = Lease(talk.session, context.turn_id, 1, 1, 3, "", published.epoch, published.position, b"")
    return Conversation(talk.sessions.history, lease, context)


def question(parent: str | None, text: str = "what now?") -> list[Message]:
    return user_message([TextPart(text)], InputIds(), client_id=USER, parent=parent)


async def branching_talk(talk: Talk, rng: random.Random, turns: int) -> None:
    """Turns that hang anywhere: on the newest answer, as an edit, as another answer; some cut short, side by side."""
    while len(talk.turns) < turns:
        before = rng.choice(talk.turns) if talk.turns and rng.random() < 0.3 else None
        newest = talk.turns[-1] if talk.turns else None
        reason = rng.choice((RunReason.COMPLETE,) * 4 + (RunReason.CANCELLED, RunReason.ERROR, None))
        if before is not None and rng.random() < 0.5:
            messages = [regenerate(InputIds(), before.answer_id, parent=before.question_id, client_id=USER)]
        else:
            above = before or newest
            parent = above.answer_id if above else None
            parts = [TextPart(f"{len(talk.turns)}.{part}") for part in range(rng.choice((1, 1, 2)))]
            messages = user_message(parts, InputIds(), client_id=USER, parent=parent)
        written = talk.turn(messages, chunks=rng.randint(0, 2), reasoning=rng.random() < 0.3, reason=reason)
        async for _ in written:
            if rng.random() < 0.1:
                await talk.note("note", rng.choice((1, 5)))
            if rng.random() < 0.05:
                # One beside it, on the same branch.
                async for _ in talk.turn(question(newest.answer_id if newest else None)):
                    pass


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_branch_is_given_exactly(
    sessions: SessionStore, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, talk = random.Random(seed), Talk(sessions)
    await branching_talk(talk, rng, rng.choice((1, 4, 12)))
    gone = rng.choice(talk.turns).serials[0]
    position, _, index = parse_position(gone)
    if seed % 2:
        await sessions.replace(
            "talk", Ref(position, index or 0), MessageAction.DELETE, Message(), NO_OPERATION
        )
    if seed % 3 == 0:
        monkeypatch.setattr(history_module, "MAX_PAGE_EXTENSION", 2)
    for _ in range(4):
        target = rng.choice(talk.turns)
        messages = question(target.answer_id)
        if rng.random() < 0.5:
            messages = [regenerate(InputIds(), target.answer_id, parent=target.question_id, client_id=USER)]
        reading = await asked(talk, messages)
        tree = await whole_tree(sessions)
        for policy in PartialAnswers:
            expected = build_prompt(tree, reading.trigger, partial_answers=policy)
            monkeypatch.setattr(conversation_module, "PAGE", rng.choice((1, 3, 10, 200)))
            assert await reading.messages(policy, with_reasoning=True) == expected
            for last in (0, 1, 2, 5, 100):
                given = await reading.messages(policy, with_reasoning=True, last=last)
                assert given == expected[max(0, len(expected) - last) :]


async def test_a_circle_of_parents_ends(sessions: SessionStore) -> None:
    talk = Talk(sessions)
    first, second = InputIds(), InputIds()
    for one, other in ((first, second), (second, first)):
        parent = other.codec_message_id
        await sessions.publish("talk", user_message([TextPart("x")], one, client_id=USER, parent=parent))
    reading = await asked(talk, question(second.codec_message_id))
    assert await reading.messages() == build_prompt(await whole_tree(sessions), reading.trigger)


async def test_a_branch_whose_beginning_is_gone_is_given_from_what_is_left(sessions: SessionStore) -> None:
    talk = Talk(sessions)
    await talk.say("kept elsewhere", parent="a-message-that-was-never-here")
    await talk.say("next")
    reading = await asked(talk, question(talk.turns[-1].answer_id))
    given = await reading.messages()
    assert given == build_prompt(await whole_tree(sessions), reading.trigger)
    assert len(given) == 5


async def test_beyond_what_is_read_at_once_it_is_refused_and_its_end_is_given(
    sessions: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Talk(sessions)
    for number in range(12):
        await talk.say(str(number))
    reading = await asked(talk, question(talk.turns[-1].answer_id))
    expected = build_prompt(await whole_tree(sessions), reading.trigger)
    monkeypatch.setattr(conversation_module, "PAGE", 10)
    for name, bound in (("MAX_MESSAGES", 50), ("MAX_BYTES", 20)):
        with monkeypatch.context() as bounded:
            bounded.setattr(conversation_module, name, bound)
            with pytest.raises(ConversationTooLong) as refused:
                await reading.messages()
            assert refused.value.info.code == 104018 and "last" in str(refused.value)
            assert await reading.messages(last=3) == expected[-3:]
    assert await reading.messages() == expected


class Neighbour:
    """Something else that the loop has to do: how long it was kept waiting, in time of this thread's CPU."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            self.longest = max(self.longest, (now := time.thread_time()) - before)
            before = now

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def test_a_long_conversation_holds_up_no_one_and_keeps_little(sessions: SessionStore) -> None:
    talk = Talk(sessions)
    for number in range(TURNS):
        await talk.say(f"question {number}", chunks=2)
    reading = await asked(talk, question(talk.turns[-1].answer_id))
    before = objects()
    tree = await whole_tree(sessions)
    of_tree, expected = objects() - before, build_prompt(tree, reading.trigger)
    del tree
    texts = texts_of(expected)
    del expected
    before = objects()
    neighbour = Neighbour()
    given = await reading.messages(with_reasoning=True)
    await neighbour.stop()
    assert (objects() - before) / of_tree < MOST_KEPT
    assert texts_of(given) == texts and len(given) == 2 * TURNS + 1
    assert neighbour.longest < LONGEST_PAUSE_S


def texts_of(prompt: list[PromptMessage]) -> list[Any]:
    return [(said.codec_message_id, said.role, said.message.text) for said in prompt]
