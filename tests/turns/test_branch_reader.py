"""A branch that is read page by page from its end is the conversation that the whole session gives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from selfhost_transport.turns.branch_reader import BranchReader
from selfhost_transport.turns.prompt import PartialAnswers, PromptMessage, build_prompt
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.message import Message
from tests.turns.transcripts import Transcript, load_all, transport

SIZES = (1, 3, 1000)


def publishes(history: Sequence[Message]) -> list[list[Message]]:
    """The messages of one publish differ in the last number of their serial. No page ends within a publish."""
    groups = itertools.groupby(history, lambda message: (message.serial or "").rpartition(":")[0])
    return [list(group) for _, group in groups]


def read(history: Sequence[Message], trigger: str, size: int, **wanted: Any) -> BranchReader:
    """Read pages of that many publishes, newest first, as a worker does."""
    reader = BranchReader("room", trigger, **wanted)
    written = publishes(history)
    for end in range(len(written), 0, -size):
        for message in itertools.chain(*written[max(0, end - size) : end]):
            reader.apply(message)
        while not reader.is_complete and reader.settle():
            pass
        if reader.is_complete:
            break
        reader.end_page(is_last=end <= size)
    return reader


def whole(history: Sequence[Message], trigger: str, policy: PartialAnswers) -> list[PromptMessage]:
    tree = SessionTree("room")
    for message in history:
        tree.apply(message)
    return build_prompt(tree, trigger, partial_answers=policy)


def conversations() -> list[Any]:
    """Every trigger of the recordings, with the history that they end with."""
    found = []
    for transcript in load_all():
        triggers = {
            transport(opening).get("input-codec-message-id", "") for opening, _ in transcript.triggers()
        }
        found += [
            pytest.param(transcript, trigger, id=f"{transcript.name}-{n}")
            for n, trigger in enumerate(sorted(triggers - {""}))
        ]
    return found


def oldest_first(transcript: Transcript) -> list[Message]:
    return sorted(transcript.history(), key=lambda message: message.serial or "")


@pytest.mark.parametrize(("transcript", "trigger"), conversations())
def test_pages_give_what_the_whole_session_gives(transcript: Transcript, trigger: str) -> None:
    history = oldest_first(transcript)
    for policy, size in itertools.product(PartialAnswers, SIZES):
        expected = whole(history, trigger, policy)
        assert read(history, trigger, size, partial_answers=policy).prompt() == expected, (policy, size)


@pytest.mark.parametrize(("transcript", "trigger"), conversations())
def test_the_last_messages_are_the_end_of_it(transcript: Transcript, trigger: str) -> None:
    history = oldest_first(transcript)
    expected = whole(history, trigger, PartialAnswers.KEEP)
    for last, size in itertools.product((0, 1, 2), SIZES):
        found = read(history, trigger, size, last=last).prompt()
        assert found == expected[max(0, len(expected) - last) :], (last, size)


def test_an_unknown_trigger_gives_an_empty_conversation() -> None:
    history = oldest_first(load_all()[0])
    reader = read(history, "not-there", 3)
    assert not reader.is_complete and reader.prompt() == []
