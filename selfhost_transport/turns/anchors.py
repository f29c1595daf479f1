"""Where in the tree a new input hangs (protocol sections 3.2, 8.9, 8.10).

An edit and another answer stand beside what they replace, so they hang below the same message. That follows from the
message itself, however much of the conversation was read.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfhost_transport.turns.tree import SessionTree


@dataclass(slots=True, frozen=True)
class Anchor:
    """Tree headers for an input."""

    parent: str | None
    fork_of: str | None = None
    regenerates: str | None = None


def edit_anchor(tree: SessionTree, codec_message_id: str) -> Anchor:
    """For an edit of a message: beside it."""
    return Anchor(_above(tree, codec_message_id), fork_of=codec_message_id)


def regenerate_anchor(tree: SessionTree, codec_message_id: str) -> Anchor:
    """For another answer in place of one; of a regenerated head: its target (section 8.9)."""
    node = tree.owner_of(codec_message_id)
    target = codec_message_id
    if node is not None and node.regenerates and next(iter(node.messages), None) == codec_message_id:
        target = node.regenerates
    return Anchor(_above(tree, codec_message_id), regenerates=target)


def _above(tree: SessionTree, codec_message_id: str) -> str | None:
    """What a message hangs below: the one before it in its node, else the parent of the node."""
    node = tree.owner_of(codec_message_id)
    if node is None:
        return None
    own = list(node.messages)
    at = own.index(codec_message_id) if codec_message_id in own else 0
    return own[at - 1] if at > 0 else node.parent
