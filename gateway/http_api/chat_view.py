"""A session as a `useChat` page knows it: ids of its own, one answer for each turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import ConversationMessage, ToolPart, UIMessage
from selfhost_transport.turns.ui_stream import CANCELLED, approvals_of
from selfhost_transport.turns.view import TreeView

USER = "user"


def history(tree: SessionTree, limit: int) -> list[dict[str, Any]]:
    """The newest `limit` messages of the shown branch, for `useChat({messages})`.

    The answer of a turn that runs is left out, so that resuming its stream shows it once; that of a suspended turn is
    there, because its calls can be answered.
    """
    found: list[tuple[str | None, UIMessage]] = []
    for item in TreeView(tree).messages():
        turn_id = tree.turn_of(item.codec_message_id) if item.message.role != USER else None
        if found and turn_id is not None and found[-1][0] == turn_id:
            # A later pass of the same turn.
            last = found[-1][1]
            found[-1] = turn_id, replace(last, parts=(*last.parts, *item.message.parts))
        else:
            found.append((turn_id, _named(item)))
    kept = [
        _with_status(tree, turn_id, _with_approvals(tree, turn_id, message))
        for turn_id, message in found
        if not _runs(tree, turn_id)
    ]
    return [message.to_json() for message in kept[-limit:]]


def _with_approvals(tree: SessionTree, turn_id: str | None, message: UIMessage) -> UIMessage:
    """The message with what people said to its calls: a page keeps that with the call, whatever its outcome."""
    node = tree.run_node(turn_id) if turn_id is not None else None
    said = approvals_of(node) if node is not None else {}
    if not said:
        return message
    parts = tuple(
        replace(part, approval=said[part.tool_call_id])
        if isinstance(part, ToolPart) and part.tool_call_id in said
        else part
        for part in message.parts
    )
    return replace(message, parts=parts)


def _named(item: ConversationMessage) -> UIMessage:
    """An answer's id is the one its stream has: that on the wire."""
    if item.message.role == USER:
        return item.message
    return replace(item.message, id=item.codec_message_id)


def _runs(tree: SessionTree, turn_id: str | None) -> bool:
    run = tree.turn(turn_id) if turn_id is not None else None
    return run is not None and not run.status.is_terminal and run.status is not TurnStatus.SUSPENDED


def _with_status(tree: SessionTree, turn_id: str | None, message: UIMessage) -> UIMessage:
    run = tree.turn(turn_id) if turn_id is not None else None
    if turn_id is None or run is None:
        return message
    given = message.metadata if isinstance(message.metadata, dict) else {}
    stopped = CANCELLED if run.status is TurnStatus.CANCELLED else {}
    return replace(message, metadata={**given, "turnId": turn_id, **stopped})


def find_user_message(tree: SessionTree, message_id: str) -> ConversationMessage | None:
    """The newest user's message that a page knows by this id: edits keep the page's id."""
    found: ConversationMessage | None = None
    for node in tree.nodes():
        for state in node.messages.values():
            if state.role == USER and message_id in (state.id, state.codec_message_id):
                found = state.snapshot()
    return found


def find_answer(tree: SessionTree, message_id: str) -> Node | None:
    """The run whose answer a page knows by this id."""
    node = tree.owner_of(message_id)
    if node is not None and node.run is not None:
        return node
    for other in tree.nodes():
        if other.run is not None and any(state.id == message_id for state in other.messages.values()):
            return other
    return None


def first_answer(tree: SessionTree, codec_message_id: str) -> str | None:
    """The first message of the shown answer to a user's message."""
    shown = TreeView(tree).messages()
    ids = [item.codec_message_id for item in shown]
    if codec_message_id not in ids:
        return None
    for item in shown[ids.index(codec_message_id) + 1 :]:
        return item.codec_message_id if item.message.role != USER else None
    return None
