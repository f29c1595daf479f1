"""From the tree to the one branch a view shows: siblings, selection, order (protocol sections 7.3 and 7.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from selfhost_transport.turns.fold import MessageState
from selfhost_transport.turns.nodes import Node, NodeKind
from selfhost_transport.turns.tree import SessionTree


@dataclass(slots=True)
class Group:
    """Alternatives, oldest first.

    For a regenerate in the middle of a run, `original` is that run: its tail from message `cut` on is the first
    alternative, and `nodes` are the others.
    """

    nodes: list[Node]
    original: Node | None = None
    cut: str | None = None

    @property
    def key(self) -> str:
        """Names the group for as long as it exists: its oldest alternative."""
        return f"{self.cut or ''}/{self.nodes[0].key}"

    def alternatives(self) -> list[Node]:
        """All alternatives; the first is the run itself for a regenerate in the middle."""
        return [self.original, *self.nodes] if self.original is not None else self.nodes

    def heads(self) -> list[MessageState | None]:
        """The message at which each alternative begins; None while an answer has not begun."""
        found = [next(iter(node.messages.values()), None) for node in self.nodes]
        if self.original is not None and self.cut is not None:
            return [self.original.messages.get(self.cut), *found]
        return found


# Which of a group's alternatives to show.
Chooser = Callable[[Group], Node]


@dataclass(slots=True)
class Branch:
    """What one selection shows."""

    nodes: list[Node] = field(default_factory=list)
    messages: list[MessageState] = field(default_factory=list)
    # The group at whose head a message stands, by codec-message-id; only groups with a choice.
    groups: dict[str, Group] = field(default_factory=dict)


def linearise(tree: SessionTree, choose: Chooser) -> Branch:
    """The branch that `choose` selects. A node whose parent was not read is a root of it: no node waits for another."""
    return _Walk(tree, choose).run()


class _Walk:
    def __init__(self, tree: SessionTree, choose: Chooser) -> None:
        self._tree = tree
        self._choose = choose
        nodes = tree.nodes()
        superseded = {node.supersedes for node in nodes if node.supersedes}
        self._nodes = [node for node in nodes if node.key not in superseded]
        # Only nodes that have an alternative.
        self._group_of: dict[Node, Group] = {}
        self._chosen: dict[str, Node] = {}
        # Shown messages of every node on the path, and the message each may not reach.
        self._path: dict[Node, list[MessageState]] = {}
        self._tails: dict[Node, list[Group]] = {}
        self._hidden: set[str] = set()

    def run(self) -> Branch:
        self._find_groups()
        for node in self._nodes:
            if self._belongs(node):
                self._path[node] = list(node.messages.values())
                self._cut_tail(node)
        branch = Branch(nodes=list(self._path))
        placed: set[Node] = set()
        for node in self._path:
            if node not in placed:
                self._emit(node, branch, placed)
        return branch

    def _find_groups(self) -> None:
        by_parent: dict[tuple[bool, str | None], list[Node]] = {}
        for node in self._nodes:
            if self._find_middle(node):
                continue
            by_parent.setdefault((node.kind is NodeKind.INPUT, node.parent), []).append(node)
        for (are_inputs, _), siblings in by_parent.items():
            if len(siblings) == 1:
                continue
            for members in _connected(siblings) if are_inputs else [siblings]:
                if len(members) > 1:
                    self._group_of.update(dict.fromkeys(members, Group(members)))

    def _find_middle(self, node: Node) -> bool:
        """Whether the run answers again from message i > 0 of another run on (section 7.4)."""
        target = node.regenerates
        if target is None or node.parent is None:
            return False
        original = self._tree.owner_of(target)
        if original is None or original is node:
            return False
        ids = list(original.messages)
        at = ids.index(target) if target in original.messages else 0
        if at == 0 or ids[at - 1] != node.parent:
            return False
        groups = self._tails.setdefault(original, [])
        group = next((g for g in groups if g.cut == target), None)
        if group is None:
            group = Group([], original, target)
            groups.append(group)
        group.nodes.append(node)
        self._group_of[node] = group
        return True

    def _belongs(self, node: Node) -> bool:
        """Whether a node is on the path, given those before it."""
        if node.parent is not None:
            parent = self._tree.owner_of(node.parent)
            if parent is not None and (parent not in self._path or node.parent in self._hidden):
                return False
        group = self._group_of.get(node)
        if group is None:
            return True
        chosen = self._chosen.get(group.key)
        if chosen is None:
            chosen = self._chosen[group.key] = self._choose(group)
        return chosen is node

    def _cut_tail(self, node: Node) -> None:
        """Hide what another answer of this run replaces, so that nothing below it is shown either (BRA-15)."""
        for group in self._tails.get(node, ()):
            if group.cut in self._hidden:
                continue
            chosen = self._chosen.setdefault(group.key, self._choose(group))
            if chosen is node:
                continue
            ids = [message.codec_message_id for message in self._path[node]]
            if group.cut in ids:
                at = ids.index(group.cut)
                self._hidden.update(ids[at:])
                self._path[node] = self._path[node][:at]

    def _emit(self, node: Node, branch: Branch, placed: set[Node]) -> None:
        placed.add(node)
        messages = self._path[node]
        group = self._group_of.get(node)
        if messages and group is not None:
            branch.groups[messages[0].codec_message_id] = group
        branch.messages += messages
        for tail in self._tails.get(node, ()):
            chosen = self._chosen.get(tail.key)
            if chosen is node and tail.cut is not None:
                branch.groups[tail.cut] = tail
            elif chosen is not None and chosen in self._path and chosen not in placed:
                # Shown in place of what it replaces, wherever its own position is.
                self._emit(chosen, branch, placed)


def _connected(inputs: list[Node]) -> list[list[Node]]:
    """Inputs of one parent, grouped by `fork-of`; without it they are not alternatives (v13).

    Two edits of one message are alternatives also where that message was not read.
    """
    group_of: dict[str, list[Node]] = {node.key: [node] for node in inputs}
    for node in inputs:
        if node.fork_of is None:
            continue
        mine = group_of[node.key]
        other = group_of.setdefault(node.fork_of, mine)
        if other is not mine:
            joined = sorted(other + mine, key=lambda n: n.order)
            group_of.update(
                {key: joined for key, group in group_of.items() if group is other or group is mine}
            )
    return list({id(group): group for group in group_of.values()}.values())
