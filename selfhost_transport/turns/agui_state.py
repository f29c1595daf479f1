"""The state that agents have reported to AG-UI clients, for a reader that gets the conversation as a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.agui_units import STATE_DELTA, STATE_SNAPSHOT, EventJson, event_of
from selfhost_transport.turns.client_input import HEADER
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui_stream import chunks_of_turn
from selfhost_transport.turns.values import Json, from_text
from selfhost_transport.turns.view import TreeView

_DATA: Final = ("data-state-snapshot", "data-state-delta")


def state_of(tree: SessionTree, turn_id: str | None = None, *, reset: bool = False) -> list[EventJson]:
    """The newest snapshot in the shown branch, and of one turn wherever that is, and what has changed since, in one delta.

    Nothing where no agent has reported any; with `reset` the state that the client sent itself, since what it holds was
    taken back.
    """
    snapshot: EventJson | None = None
    changes: list[Json] = []
    # Most conversations have none: then there is no need to go through them.
    for turn in _turns(tree, turn_id) if any(map(_has_state, tree.nodes())) else ():
        for event in _reported(tree, turn):
            if event["type"] == STATE_SNAPSHOT:
                snapshot, changes = event, []
            else:
                snapshot = snapshot or _sent(tree, turn)
                changes += event["delta"]
    if snapshot is None:
        return [_sent(tree, turn_id)] if reset and turn_id is not None else []
    return [snapshot, {"type": STATE_DELTA, "delta": changes}] if changes else [snapshot]


def _turns(tree: SessionTree, turn_id: str | None) -> list[str]:
    shown = [tree.turn_of(item.codec_message_id) for item in TreeView(tree).messages()]
    return [*dict.fromkeys(turn for turn in [*shown, turn_id] if turn is not None)]


def _reported(tree: SessionTree, turn_id: str) -> Iterator[EventJson]:
    for _, chunk in chunks_of_turn(tree.run_node(turn_id)):
        if isinstance(chunk, c.Data) and chunk.name in _DATA and not chunk.transient:
            event = event_of(chunk)
            if event is not None and event["type"] in (STATE_SNAPSHOT, STATE_DELTA):
                yield event


def _has_state(node: Node) -> bool:
    return any(
        isinstance(chunk, c.Data) and chunk.name in _DATA
        for record in node.records()
        for chunk in record.chunks
    )


def _sent(tree: SessionTree, turn_id: str) -> EventJson:
    """What the client sent as its state with the message that the turn answers."""
    run = tree.turn(turn_id)
    trigger = run.input_codec_message_id if run is not None else None
    question = tree.owner_of(trigger) if trigger is not None else None
    state: Json = {}
    for record in question.records() if question is not None else ():
        text = record.headers.field(HEADER)
        given = from_text(text) if text is not None else None
        if isinstance(given, dict) and given.get("state") is not None:
            state = given["state"]
    return {"type": STATE_SNAPSHOT, "snapshot": state}
