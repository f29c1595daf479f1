"""When a part of a session is enough to know which branch is shown (P14)."""

from __future__ import annotations

from dataclasses import replace

from selfhost_transport.turns import inputs, lifecycle
from selfhost_transport.turns.anchors import Anchor, edit_anchor, regenerate_anchor
from selfhost_transport.turns.chunks import Start, StartStep
from selfhost_transport.turns.completeness import is_settled, newest_message
from selfhost_transport.turns.context import context_for_input
from selfhost_transport.turns.encoder import Create, Encoder
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.message import Message, Version


class Session:
    """Messages as the history has them, in order."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def write(self, message: Message) -> Message:
        serial = f"{len(self.messages):014d}-000@epoch:000"
        written = replace(message, serial=serial, version=Version(serial), client_id="user-1")
        self.messages.append(written)
        return written

    def ask(self, key: str, parent: str | None = None, fork_of: str | None = None) -> Message:
        ids = inputs.InputIds(key, f"e-{key}")
        (message,) = inputs.user_message(
            [TextPart(key)], ids, client_id="user-1", parent=parent, fork_of=fork_of
        )
        return self.write(message)

    def answer(self, question: Message, key: str) -> None:
        context = context_for_input(question, session="s", agent_client_id="assistant")
        self.write(lifecycle.run_start(context))
        for chunk in (Start(), StartStep()):
            for operation in Encoder(context, key, "").encode(chunk):
                assert isinstance(operation, Create)
                self.write(operation.message)

    def turn(self, key: str, parent: str | None = None, fork_of: str | None = None) -> None:
        self.answer(self.ask(key, parent, fork_of), f"{key}-answer")

    def read(self, first: int) -> SessionTree:
        tree = SessionTree()
        for message in self.messages[first:]:
            tree.apply(message)
        return tree


def shown(tree: SessionTree) -> list[str]:
    return [message.codec_message_id for message in TreeView(tree).messages()]


def talk() -> Session:
    """Three turns, each below the one before, of four messages."""
    session = Session()
    session.turn("a")
    session.turn("b", "a-answer")
    session.turn("c", "b-answer")
    return session


def test_an_answer_whose_question_was_not_read_is_shown_with_all_that_follows() -> None:
    tree = talk().read(5)
    assert shown(tree) == ["b-answer", "c", "c-answer"]
    assert is_settled(tree)


def test_a_turn_that_was_read_from_its_middle_is_not_settled() -> None:
    assert not is_settled(talk().read(6))
    assert is_settled(talk().read(8)) and is_settled(talk().read(0))


def test_an_edit_is_settled_once_what_it_replaces_was_read() -> None:
    session = talk()
    session.turn("b2", "a-answer", fork_of="b")
    assert [is_settled(session.read(first)) for first in (8, 5, 4, 0)] == [False, False, True, True]
    assert shown(session.read(4)) == ["b2", "b2-answer"]


def test_edits_of_a_message_that_was_not_read_are_alternatives() -> None:
    session = talk()
    session.turn("b2", "a-answer", fork_of="b")
    session.turn("b3", "a-answer", fork_of="b")
    assert shown(session.read(12)) == ["b3", "b3-answer"]


def test_a_replaced_message_carries_the_place_of_its_replacement() -> None:
    tree = talk().read(8)
    assert edit_anchor(tree, "c") == Anchor("b-answer", fork_of="c")
    assert regenerate_anchor(tree, "c-answer") == Anchor("c", regenerates="c-answer")


def test_the_newest_message_is_certain_though_the_turns_beside_it_were_cut_off() -> None:
    session = Session()
    first, second = session.ask("a"), session.ask("b")
    session.answer(first, "a-answer")
    session.answer(second, "b-answer")
    session.ask("c", "b-answer")
    # From the middle of the first answer on: nothing hangs together, and still "c" is the newest.
    assert not is_settled(session.read(3))
    assert newest_message(session.read(3)) == "c"
    # Only the ends of answers: what they belong to may be older than what was not read.
    assert newest_message(Session().read(0)) is None


def test_the_newest_message_is_not_certain_beside_an_edit() -> None:
    session = talk()
    session.turn("b2", "a-answer", fork_of="b")
    assert newest_message(session.read(0)) is None
    assert newest_message(talk().read(0)) == "c-answer"
