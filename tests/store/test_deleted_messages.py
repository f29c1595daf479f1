"""A message of a conversation that was deleted or edited: the same for who watched and who reads it later."""

from __future__ import annotations

import random
from typing import Any

import pytest

from selfhost_transport.store.entries import NO_OPERATION, Ref
from selfhost_transport.store.history import Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.inputs import InputIds, user_message
from selfhost_transport.turns.prompt import build_prompt
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import parse_position
from tests.store.talks import Talk

DELETE, UPDATE = MessageAction.DELETE, MessageAction.UPDATE


class Watched:
    """A session, and a tree that has seen everything as it happened."""

    def __init__(self, sessions: SessionStore) -> None:
        self.talk = Talk(sessions)
        self.live = SessionTree("talk")
        self._sessions = sessions

    async def look(self) -> list[Message]:
        """The whole session, oldest first; what is new of it reaches the tree."""
        page = await self._sessions.history.page("talk", Query(limit=1000, forwards=True))
        for message in page.messages:
            self.live.apply(message)
        return page.messages

    async def change(self, serial: str, action: MessageAction, **change: Any) -> None:
        await self.look()
        position, _, index = parse_position(serial)
        ref = Ref(position, index or 0)
        await self._sessions.replace("talk", ref, action, Message(**change), NO_OPERATION)

    async def shown(self) -> list[dict[str, Any]]:
        """What every reader shows: live, and late in any order of reading."""
        messages = await self.look()
        expected = TreeView(self.live).messages()
        orders = [messages, messages[::-1], random.Random(1).sample(messages, len(messages))]
        for order in orders:
            late = SessionTree("talk")
            for message in order:
                late.apply(message)
            assert [one.to_json() for one in TreeView(late).messages()] == [one.to_json() for one in expected]
            assert late.turns() == self.live.turns()
        return [one.to_json() for one in expected]


@pytest.fixture
def watched(sessions: SessionStore) -> Watched:
    return Watched(sessions)


def texts(shown: list[dict[str, Any]]) -> list[str]:
    return ["".join(part.get("text", "") for part in one["message"]["parts"]) for one in shown]


def prompt(tree: SessionTree, trigger: str) -> list[str]:
    return [
        "".join(part.text for part in said.message.parts if isinstance(part, TextPart))
        for said in build_prompt(tree, trigger)
    ]


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("change", [{}, {"data": ""}, {"data": "", "extras": {}, "name": "x"}])
async def test_a_deleted_question_keeps_its_place_and_what_came_after(
    watched: Watched, at: int, change: dict[str, Any]
) -> None:
    turns = [await watched.talk.say(f"question {number}", chunks=2) for number in range(3)]
    before = await watched.shown()
    await watched.change(turns[at].serials[0], DELETE, **change)
    shown = await watched.shown()
    assert [one["codecMessageId"] for one in shown] == [one["codecMessageId"] for one in before]
    assert [one.get("deleted", False) for one in shown] == [number == 2 * at for number in range(6)]
    assert shown[2 * at]["message"] == {**before[2 * at]["message"], "parts": []}
    assert [one for one in shown if not one.get("deleted")] == [
        one for one in before if one not in (before[2 * at],)
    ]


async def test_the_model_is_not_given_what_was_deleted(watched: Watched) -> None:
    turns = [await watched.talk.say(f"question {number}") for number in range(3)]
    await watched.change(turns[0].serials[0], DELETE)
    await watched.shown()
    assert prompt(watched.live, turns[2].question_id)[:4] == ["0 ", "question 1", "0 ", "question 2"]


async def test_of_a_question_of_several_parts_the_others_stay(watched: Watched) -> None:
    messages = user_message([TextPart("one"), TextPart("two")], InputIds(), client_id="alice")
    async for _ in watched.talk.turn(messages):
        pass
    serials = watched.talk.turns[0].serials
    await watched.change(serials[0], DELETE)
    shown = await watched.shown()
    assert (texts(shown)[0], shown[0].get("deleted")) == ("two", None)
    await watched.change(serials[1], DELETE)
    shown = await watched.shown()
    assert (texts(shown)[0], shown[0].get("deleted")) == ("", True)


async def test_an_edited_question_reads_the_same_for_all(watched: Watched) -> None:
    turns = [await watched.talk.say(f"question {number}") for number in range(2)]
    await watched.change(turns[0].serials[0], UPDATE, data="edited")
    assert texts(await watched.shown()) == ["edited", "0 ", "question 1", "0 "]
    await watched.change(turns[0].serials[0], UPDATE, data="again", extras={"headers": {"a": "b"}})
    assert texts(await watched.shown()) == ["again", "0 ", "question 1", "0 "]
    await watched.change(turns[0].serials[0], DELETE)
    await watched.change(turns[0].serials[0], UPDATE, data="back")
    shown = await watched.shown()
    assert texts(shown)[0] == "back" and "deleted" not in shown[0]


async def test_a_deleted_answer_keeps_its_place(watched: Watched) -> None:
    turns = [await watched.talk.say(f"question {number}", chunks=2) for number in range(2)]
    for serial in turns[0].serials[3:-2]:
        await watched.change(serial, DELETE)
    shown = await watched.shown()
    assert texts(shown) == ["question 0", "", "question 1", "0 1 "]
    assert [one.get("deleted", False) for one in shown] == [False, True, False, False]
    assert prompt(watched.live, turns[1].question_id)[:2] == ["question 0", "question 1"]


async def test_a_life_cycle_message_that_was_deleted_has_happened_all_the_same(watched: Watched) -> None:
    said = await watched.talk.say("question")
    before = await watched.shown()
    for serial in (said.serials[1], said.serials[-1]):
        await watched.change(serial, DELETE)
    assert await watched.shown() == before


async def test_an_applications_own_message_is_changed_as_the_protocol_says(
    sessions: SessionStore,
) -> None:
    published = await sessions.publish("talk", [Message(name="n", data="d", extras={"headers": {"a": "b"}})])
    ref = Ref(published.position)
    await sessions.replace("talk", ref, DELETE, Message(name="m", extras={}), NO_OPERATION)
    (message,) = (await sessions.history.page("talk", Query())).messages
    assert (message.name, message.data, message.extras) == ("m", "d", {})
    assert h.read_headers(message) is None
