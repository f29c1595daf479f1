"""Retention takes whole turns: whenever a session is read, each turn is there from its question to its end, or not at all."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import retention as retention_module
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.history import HistoryReader, Query
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.message_states import MessageStates
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.retention import Retention
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_operations import CloseMessage, CreateMessage, OpenText
from selfhost_transport.store.turn_request import build_turn_request
from selfhost_transport.store.turn_spans import TurnSpans
from selfhost_transport.store.turn_store import CancelFilter, Lease, Scope, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.inputs import InputIds, regenerate, user_message
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position
from tests.processes import wait_until
from tests.store.pages import of_all, pages
from tests.store.slow_scripts import TRIES, slow_scripts
from tests.store.talks import Talk, random_talk

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
SEEDS = range(100 if LONG else 3)
DAY_MS = 86_400_000


@pytest.fixture
def sessions(connection: RedisConnection, keys: Keyspace) -> SessionStore:
    return SessionStore(connection, keys, StoreOptions(retention_of=lambda session: DAY_MS))


class Sweeper:
    """Moves the boundary of one session's retention to any time, and sweeps in steps."""

    def __init__(self, sessions: SessionStore, session: str) -> None:
        self.sessions = sessions
        self._redis = sessions.redis
        self._base = sessions.keys.base_of(session)
        self._session = session
        self._retention = Retention(sessions.redis, sessions.keys, StoreOptions())

    async def move_to(self, boundary_ms: int) -> None:
        """To that time, or some milliseconds later, as time goes on."""
        seconds, micros = map(int, await self._redis.command("TIME"))
        kept_ms = seconds * 1000 + micros // 1000 - boundary_ms
        await self._redis.command("HSET", f"{self._base}s:{self._session}", "rt", kept_ms)
        await self._redis.command("ZADD", f"{self._base}retention", 0, self._session)

    async def step(self) -> bool:
        """False: nothing is due."""
        return await self._retention.step(self._base) is not None

    async def move_exactly_to(self, boundary_ms: int) -> None:
        """To that time, however slow the machine is."""
        await self._redis.command("HSET", f"{self._base}s:{self._session}", "cut", boundary_ms, "rt", DAY_MS)
        await self._redis.command("ZADD", f"{self._base}retention", 0, self._session)

    async def sweep_to(self, boundary_ms: int) -> None:
        """To exactly that time."""
        await self.move_exactly_to(boundary_ms)
        while await self.step():
            pass

    async def cut_ms(self) -> int:
        return int(await self._redis.command("HGET", f"{self._base}s:{self._session}", "cut") or 0)

    async def fields(self) -> set[str]:
        return {
            name.decode() for name in await self._redis.command("HKEYS", f"{self._base}g:{self._session}")
        }

    async def publishes(self) -> int:
        return int(await self._redis.command("XLEN", f"{self._base}h:{self._session}"))

    async def records(self, serials: list[str]) -> int:
        """Keys that are left of messages."""
        refs = [Ref(position, index or 0) for position, _, index in map(parse_position, serials)]
        names = [f"{self._base}{letter}:{ref}:{self._session}" for ref in refs for letter in "mxv"]
        return int(await self._redis.command("EXISTS", *names)) if names else 0


def left_of(talk: Talk, cut_ms: int) -> list[str]:
    """What is to be seen once what ended before a time is gone."""
    kept = {serial for said in talk.turns if said.last.ms >= cut_ms for serial in said.serials}
    kept |= {serial for serial in talk.foreign if parse_position(serial)[0].ms >= cut_ms}
    return [serial for serial in talk.serials if serial in kept]


@pytest.mark.parametrize("seed", SEEDS)
async def test_at_every_boundary_and_at_every_step_turns_are_whole(
    sessions: SessionStore, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "PUBLISHES_PER_STEP", 3)
    rng, talk = random.Random(seed), Talk(sessions)
    await random_talk(talk, rng, turns=12)
    sweeper = Sweeper(sessions, "talk")
    first = parse_position(talk.serials[0])[0].ms
    last = max(parse_position(talk.serials[-1])[0].ms, *(said.last.ms for said in talk.turns))
    for number in range(26):
        await sweeper.move_to(first + (last + 2 - first) * number // 25)
        while await sweeper.step():
            found = await pages(sessions, "talk", Query(limit=rng.choice((1, 4, 1000))))
            assert of_all(found) == left_of(talk, await sweeper.cut_ms())[::-1]
        kept = left_of(talk, await sweeper.cut_ms())
        assert of_all(await pages(sessions, "talk", Query(forwards=True))) == kept
        assert await sweeper.publishes() == len({parse_position(serial)[0] for serial in kept})
        assert await sweeper.records([serial for serial in talk.serials if serial not in kept]) == 0
    assert not kept

    async def nothing_noted() -> bool:
        await sweeper.sweep_to(last + 2)
        return await sweeper.fields() == set()

    await wait_until(nothing_noted)


@pytest.mark.parametrize("reading", range(1, 7))
async def test_what_is_taken_while_a_page_is_read_is_left_out_as_a_whole(
    sessions: SessionStore, reading: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk, sweeper = Talk(sessions), Sweeper(sessions, "talk")
    for text in "abc":
        await passed((await talk.say(text)).last)
    read, count = HistoryReader._refs, 0

    async def swept_in_between(self: HistoryReader, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == reading:
            await sweeper.sweep_to(talk.turns[1].last.ms + 1)
        return await read(self, *arguments)

    monkeypatch.setattr(HistoryReader, "_refs", swept_in_between)
    # The first page reaches into the second turn.
    for limit in (1, len(talk.turns[2].serials) + 2):
        found = of_all(await pages(sessions, "talk", Query(limit=limit)))
        whole = [serial for said in talk.turns for serial in said.serials if serial in found]
        assert found == whole[::-1]
        assert all(
            set(said.serials) <= set(found) or not set(said.serials) & set(found) for said in talk.turns
        )


async def test_a_turn_goes_with_its_question_however_long_that_waited(sessions: SessionStore) -> None:
    talk, sweeper = Talk(sessions), Sweeper(sessions, "talk")
    asked = talk.turn(user_message([TextPart("a")], InputIds(), client_id="alice"))
    await anext(asked)
    await passed(talk.turns[0].last)
    await talk.note("between")
    await passed(parse_position(talk.foreign[0])[0])
    async for _ in asked:
        pass
    await sweeper.sweep_to(parse_position(talk.turns[0].serials[1])[0].ms)
    assert of_all(await pages(sessions, "talk", Query(forwards=True))) == talk.turns[0].serials
    await sweeper.sweep_to(talk.turns[0].last.ms + 1)
    assert of_all(await pages(sessions, "talk", Query())) == []


async def test_a_question_stays_for_the_newest_answer_to_it(sessions: SessionStore) -> None:
    talk, sweeper = Talk(sessions), Sweeper(sessions, "talk")
    first = await talk.say("a")
    await passed(first.last)
    question = first.question_id
    published = await sessions.publish("talk", [Message(name="x")])
    answering = h.make_extras({h.RUN_ID: "second", h.INPUT_CODEC_MESSAGE_ID: question})
    again = await sessions.publish("talk", [Message(name=h.AI_RUN_START, extras=answering)])
    await sweeper.sweep_to(published.position.ms)
    found = of_all(await pages(sessions, "talk", Query(forwards=True)))
    assert found == [first.serials[0], *published.serials(1), *again.serials(1)]


async def test_an_answer_asked_for_again_keeps_its_question(sessions: SessionStore) -> None:
    talk, sweeper = Talk(sessions), Sweeper(sessions, "talk")
    first = await talk.say("a")
    await passed(first.last)
    again = await talk.regenerate(first)
    await sweeper.sweep_to(first.last.ms + 1)
    assert of_all(await pages(sessions, "talk", Query(forwards=True))) == [first.serials[0], *again.serials]
    await passed(again.last)
    await sweeper.sweep_to(again.last.ms + 1)
    assert of_all(await pages(sessions, "talk", Query())) == []


async def test_a_worker_turn_that_answers_again_keeps_its_question(
    connection: RedisConnection, keys: Keyspace, sessions: SessionStore
) -> None:
    turns, sweeper = TurnStore(connection, keys, sessions.options), Sweeper(sessions, "talk")
    first = await submitted(turns, "a")
    ended = await turns.end(first, "completed", [CreateMessage(Message(name=h.AI_RUN_END))])
    assert ended is not None
    await passed(ended)
    page = await sessions.history.page("talk", Query(forwards=True))
    question = h.read_headers(page.messages[0])
    assert question is not None
    asked = regenerate(InputIds(), "answer", parent=question.codec_message_id, client_id="alice")
    await turns.submit(build_turn_request("talk", [asked], agent="a"))
    await sweeper.sweep_to(ended.ms + 1)
    names = [m.data for m in (await sessions.history.page("talk", Query(forwards=True))).messages]
    assert names == ["a", ""]


async def test_a_stream_that_is_appended_to_is_kept_with_its_turn(sessions: SessionStore) -> None:
    talk, sweeper = Talk(sessions), Sweeper(sessions, "talk")
    said = talk.turn(user_message([TextPart("a")], InputIds(), client_id="alice"), chunks=2)
    while talk.turns == [] or len(talk.turns[0].serials) < 5:
        await anext(said)
    created = talk.turns[0].last
    await passed(created)
    await anext(said)
    assert talk.turns[0].last.ms > created.ms
    await sweeper.sweep_to(talk.turns[0].last.ms)
    assert of_all(await pages(sessions, "talk", Query(forwards=True))) == talk.serials
    async for _ in said:
        pass
    await sweeper.sweep_to(talk.turns[0].last.ms + 1)
    assert of_all(await pages(sessions, "talk", Query())) == []


async def submitted(turns: TurnStore, question: str) -> Lease:
    messages = user_message([TextPart(question)], InputIds(), client_id="alice")
    await turns.submit(build_turn_request("talk", messages, agent="a"))
    lease = await turns.take(bucket_of("talk", turns.keys.buckets), "a", "w", 10_000)
    assert lease is not None
    return lease


async def test_a_turn_that_a_worker_has_open_is_never_cut(
    connection: RedisConnection, keys: Keyspace, sessions: SessionStore
) -> None:
    turns, sweeper = TurnStore(connection, keys, sessions.options), Sweeper(sessions, "talk")
    await sessions.publish("talk", [Message(name="note")])
    lease = await submitted(turns, "a")
    headers = h.make_extras({h.RUN_ID: lease.turn_id, h.STREAM: "true", h.STATUS: h.STREAMING})
    opened = CreateMessage(Message(name=h.AI_OUTPUT, data="", extras=headers), closing_extras=headers)
    (position,) = await turns.write(lease, 1, [opened])
    text = OpenText(Ref(position))
    turns.check_append(lease, await turns.append(lease, text, "token"))
    later = await sessions.publish("talk", [Message(name="note")])
    await passed(later.position)
    await sweeper.sweep_to(later.position.ms + 1)
    page = await sessions.history.page("talk", Query(forwards=True))
    assert [message.name for message in page.messages] == [
        h.AI_INPUT, h.AI_RUN_START, h.AI_STEP_START, h.AI_OUTPUT,
    ]  # fmt: skip
    await turns.write(lease, 2, [CloseMessage(text.ref, headers)])
    ended = await turns.end(lease, "completed", [CreateMessage(Message(name=h.AI_RUN_END, extras=headers))])
    assert ended is not None
    await sweeper.sweep_to(ended.ms)
    assert len((await sessions.history.page("talk", Query())).messages) == 5
    await passed(ended)
    await sweeper.sweep_to(ended.ms + 1)
    assert (await sessions.history.page("talk", Query())).messages == []


async def test_a_turn_that_was_cancelled_before_it_began_goes_whole(
    connection: RedisConnection, keys: Keyspace, sessions: SessionStore
) -> None:
    turns, sweeper = TurnStore(connection, keys, sessions.options), Sweeper(sessions, "talk")
    messages = user_message([TextPart("a")], InputIds(), client_id="alice")
    request = build_turn_request("talk", messages, agent="a")
    accepted = await turns.submit(request)
    await passed(accepted.position)
    cancel = Message(name=h.AI_CANCEL, extras=h.make_extras({h.RUN_ID: request.turn_id}))
    cancelled = await turns.cancels.cancel("talk", CancelFilter(Scope.TURN, request.turn_id), cancel)
    await sweeper.sweep_to(cancelled.position.ms)
    page = await sessions.history.page("talk", Query(forwards=True))
    names = [message.name for message in page.messages]
    assert names == [h.AI_INPUT, h.AI_CANCEL, h.AI_RUN_START, h.AI_RUN_END]
    end = parse_position(page.messages[-1].serial or "")[0]
    await passed(end)
    await sweeper.sweep_to(end.ms + 1)
    assert (await sessions.history.page("talk", Query())).messages == []


async def test_one_step_is_short_however_much_is_due(sessions: SessionStore) -> None:
    sweeper, slow = Sweeper(sessions, "talk"), [0]
    for _ in range(TRIES):
        for _ in range(12):
            await sessions.publish("talk", [Message(name="note", data="x")] * 1000)
        last = await sessions.publish("talk", [Message(name="note")])
        steps = 0

        async def sweep(boundary_ms: int = last.position.ms + 1) -> None:
            nonlocal steps
            await sweeper.move_to(boundary_ms)
            while await sweeper.step():
                steps += 1

        slow = await slow_scripts(sessions.redis, sweep)
        assert steps >= 12 and await sweeper.publishes() == 0
        if not slow:
            break
    assert not slow


async def test_a_page_is_not_empty_where_newer_turns_came_while_its_own_were_taken(
    sessions: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk, sweeper = Talk(sessions), Sweeper(sessions, "talk")
    first, newest = await talk.say("a"), MessageStates.newest

    async def held_up(states: MessageStates, *arguments: Any) -> tuple[list[Message], int]:
        if len(talk.turns) == 1:
            await passed(first.last)
            await talk.say("b")
            await sweeper.sweep_to(first.last.ms + 1)
        return await newest(states, *arguments)

    monkeypatch.setattr(MessageStates, "newest", held_up)
    page = await sessions.history.page("talk", Query())
    assert of_all([page]) == talk.turns[1].serials[::-1]


async def test_a_turn_that_is_taken_while_its_page_is_made_goes_whole(
    sessions: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The boundary lies within a turn, and moves beyond it between two reads of the page."""
    talk, sweeper = Talk(sessions), Sweeper(sessions, "talk")
    said = talk.turn(user_message([TextPart("a")], InputIds(), client_id="alice"))
    await anext(said)
    await passed(talk.turns[0].last)
    boundary_ms = talk.turns[0].last.ms + 1
    async for _ in said:
        pass
    await passed(talk.turns[0].last)
    await talk.say("b")
    await talk.note("old")
    await sweeper.sweep_to(boundary_ms)
    taken, held_up = TurnSpans.taken, False

    async def late(spans: TurnSpans, *arguments: Any) -> list[bool]:
        nonlocal held_up
        if not held_up:
            held_up = True
            await sweeper.sweep_to(talk.turns[0].last.ms + 1)
        return await taken(spans, *arguments)

    monkeypatch.setattr(TurnSpans, "taken", late)
    page = await sessions.history.page("talk", Query(forwards=True))
    assert held_up and of_all([page]) == [*talk.turns[1].serials, *talk.foreign]


async def test_a_retention_that_is_lifted_finishes_what_it_has_begun(
    connection: RedisConnection, keys: Keyspace, sessions: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "PUBLISHES_PER_STEP", 1)
    talk, sweeper = Talk(sessions), Sweeper(sessions, "talk")
    for text in "ab":
        await passed((await talk.say(text)).last)
    await sweeper.move_exactly_to(talk.turns[0].last.ms + 1)
    assert await sweeper.step()
    kept = await SessionStore(connection, keys).publish("talk", [Message(name="note")])
    while await sweeper.step():
        pass
    found = of_all(await pages(sessions, "talk", Query(forwards=True)))
    assert found == [*talk.turns[1].serials, *kept.serials(1)]
    assert await sweeper.publishes() == len(found)


async def passed(position: Position) -> None:
    """Wait for the next millisecond."""
    await wait_until(lambda: time.time() * 1000 > position.ms + 2)
