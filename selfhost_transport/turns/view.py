"""What one user interface shows of a session: a branch, a window on it, its own selection (protocol section 7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from selfhost_transport.turns import anchors
from selfhost_transport.turns.anchors import Anchor
from selfhost_transport.turns.completeness import is_settled
from selfhost_transport.turns.events import (
    CancelSeen,
    ChunkReceived,
    MessageChanged,
    OutputReplaced,
    Promoted,
    TreeEvent,
    TurnChanged,
)
from selfhost_transport.turns.fold import MessageState
from selfhost_transport.turns.linear import Branch, Group, linearise
from selfhost_transport.turns.nodes import Node, NodeKind
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import ConversationMessage


@dataclass(slots=True, frozen=True)
class MessagesChanged:
    """The list of visible messages is another: messages came, went or moved."""


ViewEvent: TypeAlias = (
    MessagesChanged | MessageChanged | ChunkReceived | OutputReplaced | TurnChanged | CancelSeen | Promoted
)


@dataclass(slots=True, frozen=True)
class BranchSelection:
    """The alternatives at a message, oldest first. An alternative that has no message yet is None."""

    has_siblings: bool
    siblings: tuple[ConversationMessage | None, ...]
    index: int


class TreeView:
    """A view of `tree`. Give every batch of the tree's events to `update`.

    `live_after` is the position (channelSerial) at which watching began: older messages stay hidden until
    `reveal` is called (section 7.6). None shows everything.
    """

    def __init__(self, tree: SessionTree, live_after: str | None = None) -> None:
        self.tree = tree
        self._live_after = live_after
        self._revealed: set[str] = set()
        # Chosen by the user, at most one of a group, with the group's cut: a run may stand in two groups.
        self._selected: set[tuple[str | None, Node]] = set()
        # Inputs that were shown, perhaps before another client edited them.
        self._pinned: set[Node] = set()
        # Selections for all readers up to this serial are overruled here, by the group's cut and parent.
        self._overruled: dict[tuple[str | None, str | None], str] = {}
        # Requests for another answer by this view's user that have none yet.
        self._expected: set[str] = set()
        self._version = -1
        self._branch = Branch()
        self._visible: list[MessageState] = []
        self._shown: set[str] = set()
        self._turns: set[str] = set()

    # Reading

    def messages(self) -> list[ConversationMessage]:
        """The visible messages, oldest first; unchanged messages are the same objects as before."""
        self._refresh()
        return [message.snapshot() for message in self._visible]

    def runs(self) -> list[RunInfo]:
        """The turns on the visible branch (section 8.13)."""
        self._refresh()
        return [
            node.run.info() for node in self._branch.nodes if node.run is not None and self._is_open(node)
        ]

    def branch_selection(self, codec_message_id: str) -> BranchSelection:
        """The alternatives at a message, shown or not; for an unknown or only message, itself alone or nothing."""
        self._refresh()
        group = self._group_at(codec_message_id)
        if group is None:
            alone = self.tree.message(codec_message_id)
            return BranchSelection(False, (alone,) if alone else (), 0)
        heads = group.heads()
        ids = [head.codec_message_id if head else None for head in heads]
        siblings = tuple(head.snapshot() if head else None for head in heads)
        shown = next((found for found in ids if found and self._branch.groups.get(found) is group), None)
        at = codec_message_id if codec_message_id in self._branch.groups or shown is None else shown
        return BranchSelection(True, siblings, ids.index(at))

    @property
    def hidden_count(self) -> int:
        """Messages of the branch that are loaded but not revealed."""
        self._refresh()
        return len(self._branch.messages) - len(self._visible)

    def is_read(self, count: int) -> bool:
        """Whether enough of the session is in the tree to show the newest `count` messages of the branch (P14)."""
        self._refresh()
        return len(self._branch.messages) >= count and is_settled(self.tree)

    def can_reveal(self, count: int) -> bool:
        """Whether enough of the session is in the tree to show `count` older messages of the branch."""
        return self.hidden_count >= count and is_settled(self.tree)

    # Changing the selection

    def select(self, codec_message_id: str, index: int) -> list[ViewEvent]:
        """Show the alternative `index` (clamped) at a message; an unknown message changes nothing."""
        self._refresh()
        group = self._group_at(codec_message_id)
        if group is None:
            return []
        alternatives = group.alternatives()
        self._selected.difference_update((group.cut, node) for node in alternatives)
        self._selected.add((group.cut, alternatives[max(0, min(index, len(alternatives) - 1))]))
        self._overrule(group.cut, alternatives[-1].parent)
        return self._recompute()

    def _group_at(self, codec_message_id: str) -> Group | None:
        """The group with an alternative that begins with this message; another one of them may be shown."""
        found = self._branch.groups.get(codec_message_id)
        if found is not None:
            return found
        for group in self._branch.groups.values():
            if any(head is not None and head.codec_message_id == codec_message_id for head in group.heads()):
                return group
        return None

    def alternative(self, codec_message_id: str, index: int) -> str | None:
        """The message at the head of the alternative `index` (clamped); None where there is none to choose."""
        siblings = self.branch_selection(codec_message_id).siblings
        head = siblings[max(0, min(index, len(siblings) - 1))] if siblings else None
        return head.codec_message_id if head is not None else None

    def select_own(self, codec_message_id: str) -> list[ViewEvent]:
        """Jump to an edit this view's user has just sent (section 7.3)."""
        node = self.tree.owner_of(codec_message_id)
        if node is None or node.kind is not NodeKind.INPUT:
            return []
        self._pinned.add(node)
        self._selected = {(cut, n) for cut, n in self._selected if n.run or n.parent != node.parent}
        return self._recompute()

    def expect_answer(self, trigger: str) -> None:
        """Show the answer that this view's user has asked for again, once it begins (section 7.3)."""
        self._expected.add(trigger)

    def reveal(self, count: int) -> list[ConversationMessage]:
        """Show up to `count` more of the hidden messages, the newest ones; those, oldest first (HIS-1)."""
        self._refresh()
        hidden = [message for message in self._branch.messages if not self._is_visible(message)]
        chosen = hidden[-count:] if count > 0 else []
        self._revealed.update(message.codec_message_id for message in chosen)
        self._recompute()
        return [message.snapshot() for message in chosen]

    def update(self, events: Iterable[TreeEvent]) -> list[ViewEvent]:
        """Follow the tree: of its events, those about what this view shows (BRA-17)."""
        changed = self._recompute() if self._version != self.tree.structure_version else []
        shown, turns = self._shown, self._turns
        kept: list[ViewEvent] = []
        for event in events:
            match event:
                case MessageChanged() | ChunkReceived() | Promoted() if event.codec_message_id in shown:
                    kept.append(event)
                case OutputReplaced() if event.turn_id in turns:
                    kept.append(event)
                case TurnChanged() if (
                    event.turn.run_id in turns or event.turn.input_codec_message_id in shown
                ):
                    kept.append(event)
                case CancelSeen():
                    kept.append(event)
        return changed + kept

    # Anchors of inputs

    def send_anchor(self) -> Anchor:
        """For a new message: below the newest one of the branch, whether the window shows that or not."""
        self._refresh()
        messages = self._branch.messages
        return Anchor(messages[-1].codec_message_id if messages else None)

    def edit_anchor(self, codec_message_id: str) -> Anchor:
        """For an edit of a message: beside it."""
        return anchors.edit_anchor(self.tree, codec_message_id)

    def regenerate_anchor(self, codec_message_id: str) -> Anchor:
        """For another answer in place of one; of a regenerated head: its target (section 8.9)."""
        return anchors.regenerate_anchor(self.tree, codec_message_id)

    # The branch

    def _refresh(self) -> None:
        if self._version != self.tree.structure_version:
            self._recompute()

    def _recompute(self) -> list[ViewEvent]:
        before = [message.codec_message_id for message in self._visible]
        self._version = self.tree.structure_version
        self._show_expected()
        self._branch = linearise(self.tree, self._choose)
        self._visible = [message for message in self._branch.messages if self._is_visible(message)]
        shown = [message.codec_message_id for message in self._visible]
        self._shown = set(shown)
        if self._live_after is not None:
            # What was seen stays, also where its beginning turns out to be older than the window.
            self._revealed |= self._shown
        self._turns = {node.run.run_id for node in self._branch.nodes if node.run is not None}
        self._pinned.update(
            n for n in self._branch.nodes if n.kind is NodeKind.INPUT and n.key in self._shown
        )
        return [MessagesChanged()] if shown != before else []

    def _show_expected(self) -> None:
        """Give up the choice among the answers that a new one, asked for here, stands beside: the newest is shown."""
        for trigger in list(self._expected):
            turn_id = self.tree.turn_of(trigger)
            node = self.tree.run_node(turn_id) if turn_id is not None else None
            if node is not None and node.is_shown:
                self._expected.remove(trigger)
                self._overrule(None, node.parent)
                self._overrule(node.regenerates, node.parent)
                self._selected = {
                    (cut, n)
                    for cut, n in self._selected
                    if cut != node.regenerates
                    and (cut is not None or n.run is None or n.parent != node.parent)
                }

    def _overrule(self, cut: str | None, parent: str | None) -> None:
        """From here on this view's own selection counts among these alternatives, until the next one for all."""
        if self.tree.chosen_for_all:
            self._overruled[cut, parent] = max(self.tree.chosen_for_all.values())

    def _chosen_for_all(self, group: Group) -> Node | None:
        """The selection for all readers that is newer than this view's own."""
        chosen = self.tree.chosen_for_all
        if not chosen:
            return None
        newest, found = self._overruled.get((group.cut, group.nodes[-1].parent), ""), None
        for node, head in zip(group.alternatives(), group.heads(), strict=True):
            serial = chosen.get(head.codec_message_id, "") if head is not None else ""
            if serial > newest:
                newest, found = serial, node
        return found

    def _choose(self, group: Group) -> Node:
        """The user's choice, else an input that was shown before it was edited, else the newest (section 7.3)."""
        alternatives = group.alternatives()
        if shared := self._chosen_for_all(group):
            return shared
        for node in alternatives:
            if (group.cut, node) in self._selected:
                return node
        pinned = [node for node in group.nodes if node in self._pinned and node.kind is NodeKind.INPUT]
        return pinned[-1] if pinned else alternatives[-1]

    def _is_visible(self, message: MessageState) -> bool:
        if self._live_after is None or message.serial is None or message.codec_message_id in self._revealed:
            return True
        # Items at the position itself were published before watching began.
        return message.serial > self._live_after and not message.serial.startswith(self._live_after)

    def _is_open(self, node: Node) -> bool:
        """Whether the window shows any of a run; a run without messages goes with its input."""
        if self._live_after is None:
            return True
        if node.messages:
            return any(self._is_visible(message) for message in node.messages.values())
        return node.serial is None or node.serial > self._live_after
