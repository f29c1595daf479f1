"""Dead letters on a real Redis: listed, sent again as an edit, once (DUR-11)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from selfhost_transport.errors import NotFound
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.dead_letters import DeadLetter, DeadLetters
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import bucket_of
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_request import build_turn_request
from selfhost_transport.store.turn_store import Accepted, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.inputs import InputIds, UserPart, user_message
from selfhost_transport.turns.ui import FilePart, TextPart
from tests.store.turns import SESSION, take

AGENT = "a"


@pytest.fixture
def letters(turns: TurnStore, sessions: SessionStore) -> DeadLetters:
    return DeadLetters(turns, sessions)


async def lost(turns: TurnStore, text: str = "question") -> Accepted:
    """A turn whose only worker is lost."""
    parts: list[UserPart] = [TextPart(text), FilePart("https://files.example/a.png", "image/png")]
    # As a gateway has verified it.
    messages = [replace(one, client_id="alice") for one in user_message(parts, InputIds(), client_id="alice")]
    accepted = await turns.submit(build_turn_request(SESSION, messages, agent=AGENT, max_attempts=1))
    lease = await take(turns, lease_ms=1000)
    assert lease is not None
    if lease.alone:
        await turns.begin_alone(lease)
    bucket = bucket_of(SESSION, turns.keys.buckets)
    await turns.renew(bucket, [lease], 1)
    async with asyncio.timeout(5):
        while (reaped := await turns.reap(bucket)) is None:
            await asyncio.sleep(0)
    assert reaped == (accepted.turn_id, SESSION, "failed")
    return accepted


async def only(letters: DeadLetters) -> DeadLetter:
    (letter,) = await letters.all()
    return letter


async def test_a_letter_names_the_turn_and_its_last_worker(turns: TurnStore, letters: DeadLetters) -> None:
    assert await letters.all() == []
    accepted = await lost(turns)
    letter = await only(letters)
    assert (letter.session, letter.turn_id, letter.attempts) == (SESSION, accepted.turn_id, 1)
    assert letter.worker == "w1"
    assert letter.letter_id.startswith(f"{bucket_of(SESSION, turns.keys.buckets)}/{letter.time_ms}-")


async def test_letters_are_listed_by_their_time(turns: TurnStore, letters: DeadLetters) -> None:
    first, second = await lost(turns, "one"), await lost(turns, "two")
    found = await letters.all()
    assert [letter.turn_id for letter in found] == [first.turn_id, second.turn_id]
    assert found[0].time_ms <= found[1].time_ms


async def test_all_of_a_send_is_sent_again_as_an_edit_of_it(
    turns: TurnStore, letters: DeadLetters, sessions: SessionStore
) -> None:
    accepted = await lost(turns)
    before = {message.serial for message in (await sessions.history.page(SESSION, Query())).messages}
    letter = await only(letters)
    again = await letters.requeue(letter.letter_id)
    assert again.turn_id != accepted.turn_id
    assert await letters.all() == []
    record = await turns.record(SESSION, again.turn_id)
    assert record is not None and (record.owner, record.agent, record.status) == ("alice", AGENT, "pending")
    old = await turns.record(SESSION, accepted.turn_id)
    assert old is not None and old.status == "failed"
    page = await sessions.history.page(SESSION, Query(forwards=True))
    inputs = [message for message in page.messages if message.name == h.AI_INPUT]
    first, second = (
        [one for one in inputs if one.serial in before],
        [one for one in inputs if one.serial not in before],
    )
    assert len(first) == len(second) == 2
    assert [one.data for one in first] == [one.data for one in second]
    for one, other in zip(first, second, strict=True):
        was, now = h.read_headers(one), h.read_headers(other)
        assert was is not None and now is not None
        assert now.get(h.FORK_OF) == was.codec_message_id != now.codec_message_id
        assert was.event_id != now.event_id


async def test_a_letter_is_sent_once(turns: TurnStore, letters: DeadLetters) -> None:
    await lost(turns)
    letter = await only(letters)
    await letters.requeue(letter.letter_id)
    with pytest.raises(NotFound, match="no dead letter"):
        await letters.requeue(letter.letter_id)


async def test_a_requeue_that_was_cut_off_is_completed_by_another(
    turns: TurnStore, letters: DeadLetters, connection: RedisConnection
) -> None:
    """The process died between the send and the end of the letter: the second one is the same turn."""
    await lost(turns)
    letter = await only(letters)
    key = f"{turns.keys.base_of(SESSION)}dead"
    _, item = (await connection.command("XRANGE", key, "-", "+"))[0]
    first = await letters.requeue(letter.letter_id)
    await connection.command("DEL", key)
    await connection.command("XADD", key, letter.letter_id.partition("/")[2], *item)
    second = await letters.requeue(letter.letter_id)
    assert (second.turn_id, second.repeated) == (first.turn_id, True)
    assert await letters.all() == []


@pytest.mark.parametrize("letter_id", ["", "1", "1/", "x/1-0", "/1-0"])
async def test_what_is_not_the_id_of_a_letter_is_refused(letters: DeadLetters, letter_id: str) -> None:
    with pytest.raises(NotFound, match="not the id of a dead letter"):
        await letters.requeue(letter_id)


async def test_a_message_that_is_gone_is_not_sent_again(
    turns: TurnStore, letters: DeadLetters, connection: RedisConnection
) -> None:
    await lost(turns)
    letter = await only(letters)
    await connection.command("DEL", f"{turns.keys.base_of(SESSION)}h:{SESSION}")
    with pytest.raises(NotFound, match="no longer stored"):
        await letters.requeue(letter.letter_id)
    assert await only(letters) == letter, "it stays"
    await connection.command("DEL", turns.keys.of_item("t", letter.turn_id, SESSION))
    with pytest.raises(NotFound, match="no longer stored"):
        await letters.requeue(letter.letter_id)
