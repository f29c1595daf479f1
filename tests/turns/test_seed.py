"""Stored messages in front of a session (HYD-2, HYD-3, HYD-4, HYD-6, HYD-9), over every recorded transcript."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from selfhost_transport.errors import InvalidArgument, ResumePointLost
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.prompt import build_prompt
from selfhost_transport.turns.seed import (
    Seed,
    before,
    check_resume_point,
    is_joined,
    joins_chain,
    with_stored,
)
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import ConversationMessage, UIMessage
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.message import Format, Message, decode_message
from selfhost_transport.wire.serial import Position, parse_position
from tests.turns.transcripts import Transcript, load, load_all, transport

PAGE_SIZES = (1, 3, 7, 100)


def folded(messages: list[Message]) -> SessionTree:
    tree = SessionTree()
    for message in messages:
        tree.apply(message)
    return tree


def shown(tree: SessionTree) -> list[ConversationMessage]:
    return TreeView(tree).messages()


def behind(seed: Seed, tree: SessionTree) -> list[ConversationMessage]:
    return TreeView(tree).messages()


def pages(history: list[Message], size: int) -> Iterator[list[Message]]:
    """As the service cuts them: newest first, and never inside a run or a message of several parts (section 7.7)."""
    end = len(history)
    while end > 0:
        start = max(0, end - size)
        while start > 0 and groups(history[start:end]) & groups(history[:start]):
            start -= 1
        yield history[start:end]
        end = start


def groups(messages: list[Message]) -> set[str]:
    found = (transport(message) for message in messages)
    return {headers.get(h.RUN_ID) or headers.get(h.CODEC_MESSAGE_ID, "") for headers in found} - {""}


def stored_at(history: list[Message], count: int) -> list[ConversationMessage]:
    """What is stored once everything up to a message has happened: the turns that have ended, on the shown branch."""
    tree = folded(history[:count])
    open_turns = {turn.run_id for turn in tree.turns() if not turn.status.is_terminal}
    found = shown(tree)
    return [m for m in found if tree.turn_of(m.codec_message_id) not in (None, *open_turns)]


def ends(history: list[Message]) -> list[int]:
    return [n + 1 for n, message in enumerate(history) if message.name == h.AI_RUN_END]


def read_back(seed: Seed, history: list[Message], size: int) -> SessionTree:
    tree = SessionTree()
    for page in pages(history, size):
        for message in page:
            tree.apply(message)
        if is_joined(seed, tree, page[0].serial):
            break
    return tree


def transcripts() -> list[Any]:
    return [pytest.param(t, id=t.name) for t in load_all() if ends(t.history())]


@pytest.mark.parametrize("transcript", transcripts())
def test_hyd_2_seed_and_live_tail_are_the_whole_conversation(transcript: Transcript) -> None:
    history = transcript.history()
    expected = shown(folded(history))
    for count in ends(history):
        stored = stored_at(history, count)
        for size in PAGE_SIZES:
            for seed in (Seed(tuple(stored)), Seed(tuple(message.message for message in stored))):
                tree = read_back(seed, history, size)
                composed = [m.message for m in [*before(seed, tree), *behind(seed, tree)]]
                assert composed == [m.message for m in expected], (count, size)


@pytest.mark.parametrize("transcript", transcripts())
def test_hyd_4_the_agent_reads_the_same_conversation(transcript: Transcript) -> None:
    history = transcript.history()
    for trigger in (transport(m).get(h.CODEC_MESSAGE_ID, "") for m in history if m.name == h.AI_INPUT):
        whole = folded(history)
        expected = [said.message for said in build_prompt(whole, trigger)]
        for count in ends(history):
            seed = Seed(tuple(stored_at(history, count)))
            for size in PAGE_SIZES:
                tree = SessionTree()
                for page in pages(history, size):
                    for message in page:
                        tree.apply(message)
                    if joins_chain(seed, tree, trigger, build_prompt(tree, trigger)):
                        break
                prompt = with_stored(seed, tree, trigger, build_prompt(tree, trigger), None)
                if not is_on_chain(seed, expected):
                    continue
                assert [said.message for said in prompt] == expected, (trigger, count, size)


def is_on_chain(seed: Seed, expected: list[UIMessage]) -> bool:
    """Whether the stored branch is the one that is answered, up to where they part."""
    stored = [message.message for message in seed.messages if isinstance(message, ConversationMessage)]
    return stored[: len(expected)] == expected[: len(stored)]


def test_hyd_3_an_empty_seed_reads_everything() -> None:
    history = load("47").history()
    tree = read_back(Seed(), history, 1)
    assert before(Seed(), tree) == [] and shown(tree) == shown(folded(history))
    check_resume_point(Seed(), tree, "vectors", truncated_at="00000000000001-000@vectors000")


def test_what_is_no_stored_message_is_refused() -> None:
    unfit: list[Any] = [{"messages": []}, ['{"id": "1"}'], [{"message": {"id": "1"}}]]
    for wrong in unfit:
        with pytest.raises(InvalidArgument, match="a stored message"):
            Seed.from_json(wrong)


def test_hyd_9_a_turn_that_began_before_the_resume_point_is_read_with_its_question() -> None:
    history = load("12").history()
    whole = shown(folded(history))
    (first, last) = ends(history)[:2]
    # The turn that ended last is not stored, though its question is older than the newest stored message.
    stored = stored_at(history, first)
    assert first < last and len(stored) < len(whole)
    seed = Seed(tuple(stored))
    tree = read_back(seed, history, 1)
    assert {m.codec_message_id for m in [*before(seed, tree), *behind(seed, tree)]} == {
        m.codec_message_id for m in whole
    }


def two_turns() -> tuple[list[Message], list[ConversationMessage], str]:
    """A history, its messages, and the position of the end of its first turn."""
    # Recorded serials name an epoch of another length than this service's.
    recorded = json.dumps(load("02").raw["history"]).replace("@vectors", "@vectors000")
    history = [decode_message(line, Format.JSON) for line in json.loads(recorded)]
    end = ends(history)[0]
    return history, shown(folded(history)), (history[end - 1].serial or "").rpartition(":")[0]


def test_hyd_6_a_resume_point_that_retention_took_is_an_error_unless_it_is_known_to_be_stored() -> None:
    history, whole, position = two_turns()
    at = ends(history)[0]
    kept = folded(history[at:])
    old = Seed(tuple(whole[:1]))
    truncated, beyond = position, (history[at].serial or "").rpartition(":")[0]
    with pytest.raises(ResumePointLost) as failure:
        check_resume_point(old, kept, "vectors000", truncated)
    assert failure.value.info.code == 90003 and truncated in str(failure.value)
    check_resume_point(replace(old, allow_gap=True), kept, "vectors000", truncated)
    # What was taken is stored, as the position shows; then more was taken, or the session was made again.
    known = replace(old, resume_point=position)
    check_resume_point(known, kept, "vectors000", truncated)
    for epoch, taken in (("vectors000", beyond), ("other00000", truncated)):
        with pytest.raises(ResumePointLost):
            check_resume_point(known, SessionTree(), epoch, taken)


def test_hyd_6_agents_are_notified_too() -> None:
    history, whole, position = two_turns()
    at = ends(history)[0]
    kept = folded(history[at:])
    trigger = next(transport(m)[h.CODEC_MESSAGE_ID] for m in history[at:] if m.name == h.AI_INPUT)
    prompt = build_prompt(kept, trigger)
    plain = Seed(tuple(message.message for message in whole[:2]))
    taken = parse_position(position)[0]
    with pytest.raises(ResumePointLost):
        with_stored(plain, kept, trigger, prompt, taken)
    for seed in (
        replace(plain, resume_point=position),
        replace(plain, allow_gap=True),
        Seed(tuple(whole[:2])),
    ):
        composed = with_stored(seed, kept, trigger, prompt, taken)
        assert [said.message for said in composed] == [m.message for m in whole[:2]] + [
            said.message for said in prompt
        ]
    assert with_stored(Seed(), kept, trigger, prompt, Position.ZERO) == prompt


def test_stored_messages_come_back_from_json() -> None:
    stored = shown(folded(load("04").history()))
    seed = Seed.from_json([message.to_json() for message in stored])
    assert list(seed.messages) == stored and seed.last_codec_message_id == stored[-1].codec_message_id
    plain = Seed.from_json([message.message.to_json() for message in stored])
    assert list(plain.messages) == [message.message for message in stored]
    assert plain.last_codec_message_id is None
    with pytest.raises(InvalidArgument):
        Seed.from_json([{"message": {"id": "x"}}])
    with pytest.raises(InvalidArgument):
        Seed(resume_point="yesterday")
