"""The conversation for the model out of a history that is read newest first, keeping only the needed part.

The caller reads the pages and hands them over; nothing here waits. Every step is short, so that the caller can yield.
"""

from __future__ import annotations

from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.codecs import UI_MESSAGES
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.prompt import PartialAnswers, PromptMessage, is_partial, of_current, of_node
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.message import Message


class BranchReader:
    """The branch that ends in one trigger, from its end towards its beginning.

    Gives what `build_prompt` gives of the whole session. Of a node that was read whole only its messages are kept, and
    of nodes beside the branch nothing: memory grows with the branch, not with the session.
    """

    def __init__(
        self,
        session: str,
        trigger: str,
        *,
        codec: Codec = UI_MESSAGES,
        partial_answers: PartialAnswers = PartialAnswers.KEEP,
        last: int | None = None,
    ) -> None:
        # What was read and is not settled, with the turn of the trigger.
        self.tree = SessionTree(session, codec)
        self._trigger = trigger
        self._policy = partial_answers
        self._last = last
        # Nodes of the branch that are settled, newest first: their messages.
        self._settled: list[list[PromptMessage]] = []
        self._taken: set[str] = set()
        self._count = 0
        self._has_begun = False
        self._reached_beginning = False
        # The message that the oldest settled node hangs below.
        self._next: str | None = None
        self._replaced: str | None = None
        self._current: Node | None = None
        # What the oldest settled node means for the one before it.
        self._cut: str | None = None
        self._drops_question = False

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for is settled."""
        if not self._has_begun:
            return False
        if self._last is not None and self._messages() >= self._last:
            return True
        return self._is_at_root()

    def apply(self, message: Message) -> None:
        """Take a message of the page; a page's messages come oldest first."""
        self.tree.apply(message)

    def settle(self) -> bool:
        """Settle the next node of the branch, if it was read whole. Whether there was one."""
        if not (self._has_begun or self._begin()) or self._is_at_root():
            return False
        node = self.tree.owner_of(self._next or "")
        if node is None or not (self._is_whole(node) or self._reached_beginning):
            return False
        self._take(node)
        return True

    def end_page(self, *, is_last: bool) -> None:
        """After a page was taken and settled. `is_last`: nothing is older; the rest is settled as it is."""
        if is_last:
            self._reached_beginning = True
            while self.settle():
                pass
        if self._has_begun:
            self.tree.forget(self._is_needed, self._trigger)

    def prompt(self) -> list[PromptMessage]:
        """The conversation, oldest first; the last messages that were asked for."""
        found = [said for messages in reversed(self._settled) for said in messages]
        found += self._of_current_turn()
        return found if self._last is None else found[max(0, len(found) - self._last) :]

    def _begin(self) -> bool:
        """Whether the trigger was read, and its turn from the start."""
        tree, trigger = self.tree, self._trigger
        request, owner = tree.trigger(trigger), tree.owner_of(trigger)
        if request is None and owner is None:
            return False
        turn = tree.turn_of(trigger)
        current = tree.run_node(turn) if turn is not None else None
        if current is not None and not (self._is_whole(current) or self._reached_beginning):
            return False
        self._current = current
        self._replaced = request.regenerates if request else None
        self._next = request.parent if request is not None and owner is None else trigger
        self._cut = current.regenerates if current is not None else None
        self._has_begun = True
        return True

    def _is_whole(self, node: Node) -> bool:
        """Whether nothing of a node is older than what was read: an input is one publish, a turn begins behind one."""
        if node.run is None:
            return True
        if not node.run.is_started:
            return False
        asked = node.run.input_codec_message_id
        return asked is None or self.tree.trigger(asked) is not None or self.tree.owner_of(asked) is not None

    def _is_needed(self, node: Node) -> bool:
        if node is self._current:
            return True
        return node.key not in self._taken and not self._is_whole(node)

    def _is_at_root(self) -> bool:
        if not self._next:
            return True
        node = self.tree.owner_of(self._next)
        # Parents in a circle end where they meet.
        return node is not None and node.key in self._taken

    def _take(self, node: Node) -> None:
        is_dropped = self._policy is not PartialAnswers.KEEP and self._is_dropped(node)
        messages = [] if is_dropped or self._is_dropped_question(node) else self._of(node)
        self._settled.append(messages)
        self._taken.add(node.key)
        self._drops_question = is_dropped and self._policy is PartialAnswers.DROP
        self._count += len(messages)
        self._cut, self._next = node.regenerates, node.parent

    def _is_dropped(self, node: Node) -> bool:
        # The trigger stays, and the messages it continues.
        return bool(self._settled) and node is not self._current and is_partial(node)

    def _is_dropped_question(self, node: Node) -> bool:
        return self._drops_question and node.run is None

    def _of(self, node: Node) -> list[PromptMessage]:
        if node is self._current:
            return of_current(node, self._trigger, self._policy)
        return of_node(node, {self._cut, self._replaced}, self._policy)

    def _of_current_turn(self) -> list[PromptMessage]:
        """The turn itself, where the branch does not go through it."""
        current = self._current
        if current is None or current.key in self._taken:
            return []
        return of_current(current, self._trigger, self._policy)

    def _messages(self) -> int:
        return self._count + len(self._of_current_turn())
