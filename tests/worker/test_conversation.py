"""How much of a session a worker reads for a turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from agent_worker import Turn, Worker
from agent_worker.agent import conversation as conversation_module
from agent_worker.agent.conversation import text_parts
from selfhost_transport.settings import Settings
from selfhost_transport.store.history import HistoryReader, Page, Query
from selfhost_transport.turns import headers as h
from tests.worker.session import Room

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]
TURNS = 6


class Talk:
    """A chat whose agent notes what it was given; every message follows the answer before it."""

    def __init__(self, room: Room, worker: Worker, last: int | None = None) -> None:
        self._room = room
        self.given: list[str] = []
        self._parent: str | None = None

        @worker.agent("assistant")
        async def assistant(turn: Turn) -> None:
            said = await turn.messages(last=last)
            self.given = [text for one in said for text in text_parts(one.message)]
            await turn.pipe([f"answer to {await turn.text()}"])

    async def say(self, text: str, *, new_root: bool = False) -> None:
        """Send a text and wait for the answer."""
        turn = await self._room.send(text, parent=None if new_root else self._parent)
        await self._room.ended(turn)
        answers = [h.read_headers(message) for message in await self._room.of_turn(turn)]
        self._parent = next(found.codec_message_id for found in answers if found and found.kind == "text")


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Query]:
    """Every page of a history that is read, with pages of a few messages."""
    monkeypatch.setattr(conversation_module, "PAGE", 8)
    seen: list[Query] = []
    read = HistoryReader.page

    async def counted(self: HistoryReader, session: str, query: Query) -> Page:
        seen.append(query)
        return await read(self, session, query)

    monkeypatch.setattr(HistoryReader, "page", counted)
    return seen


async def test_a_conversation_is_read_once_and_whole(
    room: Room, settings: MakeSettings, running: Run, pages: list[Query]
) -> None:
    talk = Talk(room, worker := Worker(settings()))
    await running(worker)
    for number in range(TURNS):
        pages.clear()
        await talk.say(f"question {number}")
    expected = [text for n in range(TURNS) for text in (f"question {n}", f"answer to question {n}")]
    assert talk.given == expected[:-1]
    assert len(pages) > TURNS / 2


async def test_only_the_branch_that_is_answered_is_read(
    room: Room, settings: MakeSettings, running: Run, pages: list[Query]
) -> None:
    talk = Talk(room, worker := Worker(settings()))
    await running(worker)
    for number in range(TURNS):
        await talk.say(f"question {number}")
    pages.clear()
    await talk.say("from the beginning", new_root=True)
    assert talk.given == ["from the beginning"]
    assert len([query for query in pages if query.limit == 8]) == 1


async def test_the_last_messages_are_read_without_the_rest(
    room: Room, settings: MakeSettings, running: Run, pages: list[Query]
) -> None:
    talk = Talk(room, worker := Worker(settings()), last=2)
    await running(worker)
    for number in range(TURNS):
        pages.clear()
        await talk.say(f"question {number}")
    assert talk.given == [f"answer to question {TURNS - 2}", f"question {TURNS - 1}"]
    assert len([query for query in pages if query.limit == 8]) <= 3


async def test_the_text_of_a_send_costs_no_reading(
    room: Room, settings: MakeSettings, running: Run, pages: list[Query]
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def assistant(turn: Turn) -> None:
        await turn.pipe([await turn.text()])

    await running(worker)
    turn = await room.send("hello")
    await room.ended(turn)
    assert pages == []
    assert await room.text(turn) == "hello"
