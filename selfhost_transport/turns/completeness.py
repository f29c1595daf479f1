"""Whether the messages read so far determine the shown branch, or older ones are needed (P14)."""

from __future__ import annotations

from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.tree import SessionTree


def is_settled(tree: SessionTree) -> bool:
    """Whether everything that the nodes of a tree take the place of was read, and they hang together.

    Older messages then only come in front. Otherwise a node may be shown that belongs to a branch that is not selected:
    the edit of a message that was not read, beside what followed the original.
    """
    parents: set[str] = set()
    for node in tree.nodes():
        if not _is_whole(node) or not _knows_what_it_replaces(tree, node):
            return False
        if node.parent is not None and tree.owner_of(node.parent) is None:
            parents.add(node.parent)
    return len(parents) <= 1 and all(tree.owner_of(head) is not None for head in tree.chosen_for_all)


def newest_message(tree: SessionTree) -> str | None:
    """The newest message of the branch where that is certain from what was read; None: read on.

    Without an alternative in sight everything is shown. A run that was not read from its start began before all that was
    read, so the newest of the others is the newest of all, however many turns stream side by side.
    """
    nodes = tree.nodes()
    if tree.chosen_for_all or any(node.fork_of or node.regenerates or node.supersedes for node in nodes):
        return None
    whole = [node for node in nodes if _is_whole(node) and node.messages]
    return next(reversed(whole[-1].messages)) if whole else None


def _is_whole(node: Node) -> bool:
    """Whether a run was read from its start."""
    return node.run is None or node.run.is_started


def _knows_what_it_replaces(tree: SessionTree, node: Node) -> bool:
    for replaced in (node.fork_of, node.regenerates):
        if replaced is not None and tree.owner_of(replaced) is None:
            return False
    return node.supersedes is None or tree.run_node(node.supersedes) is not None
