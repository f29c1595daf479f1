"""The whole messages of one turn, read from the part of the history that it lies in (HYD-1), on a real Redis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfhost_transport.store import turn_messages
from selfhost_transport.store.ended_turns import Ended
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_messages import TurnMessages, read_turn
from selfhost_transport.turns import ui
from selfhost_transport.turns.inputs import InputIds, user_message
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import parse_position
from tests.store.talks import AGENT, USER, Said, Talk


def ended(talk: Talk, said: Said) -> Ended:
    """The turn as it is queued for exporters."""
    first = parse_position(said.serials[0])[0]
    return Ended(
        bucket=0, item_id="1-1", session=talk.session, epoch="e", turn_id=said.turn_id, status=TurnStatus.COMPLETED,
        agent=AGENT, owner=USER, first=first, last=said.last, open=said.last, delivery=1,
    )  # fmt: skip


def texts(found: TurnMessages) -> list[tuple[str, str]]:
    return [
        (
            said.message.role,
            "".join(part.text for part in said.message.parts if isinstance(part, ui.TextPart)),
        )
        for said in found.messages
    ]


@pytest.mark.parametrize("page", [1, 2, 500])
async def test_a_turn_is_read_alone_whatever_stands_around_it(
    sessions: SessionStore, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(turn_messages, "_PAGE", page)
    talk = Talk(sessions)
    await talk.say("before")
    both = user_message([TextPart("one"), TextPart("two")], InputIds(), client_id=USER)
    writing = talk.turn(both, chunks=3, reasoning=True)
    await anext(writing)
    said = talk.turns[-1]
    # Another turn, and the application's own messages, in the middle of it.
    between = await talk.say("between", chunks=2)
    await sessions.publish(talk.session, [Message(name="note", data="x")])
    async for _ in writing:
        pass
    await talk.say("after")
    found = await read_turn(sessions.history, ended(talk, said))
    (question, answer) = texts(found)
    assert question == ("user", "onetwo")
    assert answer[0] == "assistant" and answer[1]
    assert not found.truncated
    other = texts(await read_turn(sessions.history, ended(talk, between)))
    assert other[0] == ("user", "between") and len(other) == 2


async def test_a_turn_that_wrote_nothing_is_its_question(sessions: SessionStore) -> None:
    talk = Talk(sessions)
    writing = talk.turn(user_message([TextPart("hello")], InputIds(), client_id=USER))
    await anext(writing)
    found = await read_turn(sessions.history, ended(talk, talk.turns[-1]))
    assert texts(found) == [("user", "hello")]


async def test_messages_of_other_turns_change_nothing_of_a_turn(sessions: SessionStore) -> None:
    talk = Talk(sessions)
    ids = InputIds()
    writing = talk.turn(user_message([TextPart("mine")], ids, client_id=USER), chunks=2)
    await anext(writing)
    said = talk.turns[-1]
    # A client that gives its message, and an agent that gives its answer, the ids of this turn's.
    other = user_message(
        [TextPart("another's")], replace(InputIds(), codec_message_id=ids.codec_message_id), client_id=USER
    )
    taken = talk.turn(other, chunks=1)
    await anext(taken)
    talk.turns[-1].answer_id = said.answer_id
    async for _ in taken:
        pass
    async for _ in writing:
        pass
    found = await read_turn(sessions.history, ended(talk, said))
    assert texts(found) == [("user", "mine"), ("assistant", "0 1 ")]
