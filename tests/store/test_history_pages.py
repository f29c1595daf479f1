"""Pages of a history: together exactly the session, and none begins inside a turn (ai-transport section 7.7)."""

from __future__ import annotations

import os
import random

import pytest

from selfhost_transport.store import history
from selfhost_transport.store.history import Page, Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns.inputs import InputIds, user_message
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position
from tests.store.pages import of_all, pages, serials
from tests.store.talks import Said, Talk, random_talk

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
SEEDS = range(200 if LONG else 12)
LIMITS = range(1, 60) if LONG else (1, 2, 3, 7, 20, 1000)


def cut_turns(talk: Talk, page: Page) -> list[Said]:
    """The turns of which a page has the end without the beginning."""
    shown = set(serials(page))
    return [said for said in talk.turns if shown & set(said.serials) and said.serials[0] not in shown]


@pytest.mark.parametrize("seed", SEEDS)
async def test_all_pages_together_are_the_session_and_none_begins_inside_a_turn(
    sessions: SessionStore, seed: int
) -> None:
    rng = random.Random(seed)
    talk = Talk(sessions)
    await random_talk(talk, rng, turns=rng.choice((1, 4, 9)))
    for limit in LIMITS:
        backwards = await pages(sessions, "talk", Query(limit=limit))
        assert of_all(backwards) == talk.serials[::-1]
        assert all(len(page.messages) >= limit for page in backwards[:-1])
        assert not any(cut_turns(talk, page) for page in backwards)
        forwards = await pages(sessions, "talk", Query(limit=limit, forwards=True))
        assert of_all(forwards) == talk.serials
        exact = await pages(sessions, "talk", Query(limit=limit, align=False))
        assert of_all(exact) == talk.serials[::-1]
        for found in (forwards, exact):
            assert {len(page.messages) for page in found[:-1]} <= {limit}


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_page_keeps_to_the_bounds_asked_for(sessions: SessionStore, seed: int) -> None:
    rng = random.Random(seed)
    talk = Talk(sessions)
    await random_talk(talk, rng, turns=5)
    at = [parse_position(serial)[0] for serial in talk.serials]
    for limit in LIMITS:
        until, start = at[rng.randrange(len(at))], at[rng.randrange(len(at))]
        found = await pages(sessions, "talk", Query(limit=limit, until=until))
        expected = [serial for serial, position in zip(talk.serials, at, strict=True) if position <= until]
        assert of_all(found) == expected[::-1]
        found = await pages(sessions, "talk", Query(limit=limit, until=until, start_ms=start.ms))
        expected = [
            serial
            for serial, position in zip(talk.serials, at, strict=True)
            if position <= until and position.ms >= start.ms
        ]
        assert of_all(found) == expected[::-1]


async def test_a_page_that_begins_with_a_turns_output_brings_its_question_along(
    sessions: SessionStore,
) -> None:
    talk = Talk(sessions)
    asked = talk.turn(user_message([TextPart("a"), TextPart("b")], InputIds(), client_id="alice"))
    await anext(asked)
    await talk.note("in between", 5)
    async for _ in asked:
        pass
    page = await sessions.history.page("talk", Query(limit=2))
    assert serials(page) == talk.serials[::-1]
    assert page.next_cursor is None


async def test_a_question_that_another_turn_answers_again_is_not_fetched_from_afar(
    sessions: SessionStore,
) -> None:
    talk = Talk(sessions)
    first = await talk.say("first")
    for number in range(5):
        await talk.say(str(number))
    again = await talk.regenerate(first)
    page = await sessions.history.page("talk", Query(limit=1))
    assert serials(page) == again.serials[::-1]


async def test_the_growth_of_a_page_is_bounded_in_number(
    sessions: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_PAGE_EXTENSION", 10)
    talk = Talk(sessions)
    asked = talk.turn(user_message([TextPart("a")], InputIds(), client_id="alice"))
    await anext(asked)
    await talk.note("many", 20)
    async for _ in asked:
        pass
    found = await pages(sessions, "talk", Query(limit=3))
    assert len(found[0].messages) == 3
    assert of_all(found) == talk.serials[::-1]
    assert all(len(page.messages) <= 3 + 10 for page in found)


async def test_the_growth_of_a_page_is_bounded_in_bytes(
    sessions: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_PAGE_EXTENSION_BYTES", 1000)
    talk = Talk(sessions)
    for text in ("small", "x" * 2000):
        await talk.say(text)
    found = await pages(sessions, "talk", Query(limit=2))
    assert len(found[0].messages) == 2
    assert of_all(found) == talk.serials[::-1]
    assert cut_turns(talk, found[0]) == talk.turns[1:]
    assert not cut_turns(talk, found[-1])


async def test_withheld_messages_do_not_move_the_cursors(sessions: SessionStore) -> None:
    talk = Talk(sessions)
    await random_talk(talk, random.Random(3), turns=6)

    def visible(message: Message) -> bool:
        return message.name != "note"

    for limit in LIMITS:
        found = await pages(sessions, "talk", Query(limit=limit, visible=visible))
        assert of_all(found) == [one for one in talk.serials if one not in talk.foreign][::-1]
        assert not any(cut_turns(talk, page) for page in found)


async def test_turns_of_before_questions_were_noted_are_read_all_the_same(sessions: SessionStore) -> None:
    talk = Talk(sessions)
    for number in range(3):
        await talk.say(str(number))
    index = f"{sessions.keys.base_of('talk')}g:talk"
    await sessions.redis.command("DEL", index)
    for said in talk.turns:
        run_start = parse_position(said.serials[1])[0]
        await sessions.redis.command("HSET", index, said.turn_id, run_start.stream_id)
    found = await pages(sessions, "talk", Query(limit=2))
    assert of_all(found) == talk.serials[::-1]
    assert talk.serials and parse_position(talk.serials[0])[0] > Position.ZERO
