"""A session's conversation, folded from its stored messages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gateway.commands.branch import PAGE, read_back
from selfhost_transport.store.history import Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns.headers import AI_OUTPUT, read_headers
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.view import TreeView
from selfhost_transport.turns.withholding import NOTHING, Hidden, shown
from selfhost_transport.wire.serial import Position

_CALL_PAGE = 200


@dataclass(frozen=True, slots=True)
class ConversationJson:
    """Messages and turns of the newest branch as JSON values; `truncated`: older messages exist.

    `truncated_at`: where the oldest ones stood that retention has taken, if these are all that is left.
    """

    messages: list[dict[str, Any]]
    turns: list[dict[str, Any]]
    truncated: bool
    truncated_at: Position | None = None


async def read_conversation(
    sessions: SessionStore, session: str, limit: int, hidden: Hidden = NOTHING
) -> ConversationJson:
    """The newest `limit` messages of the conversation, however many entries they and others between them are."""
    tree = SessionTree(session)
    view = TreeView(tree)
    page = await read_back(
        sessions,
        tree,
        Query(limit=PAGE, visible=shown(hidden, conversation=True)),
        lambda: view.is_read(limit),
    )
    known = view.messages()
    messages = known[-limit:]
    turns = {tree.turn_of(message.codec_message_id) for message in messages}
    return ConversationJson(
        messages=[message.to_json() for message in messages],
        turns=[
            {**run.to_json(), "status": run.shown_status.value, "agent": run.agent_client_id}
            for run in view.runs()
            if run.run_id in turns or not run.status.is_terminal
        ],
        truncated=page.next_cursor is not None or len(messages) < len(known),
        truncated_at=page.truncated_at if len(messages) == len(known) else None,
    )


async def find_call(sessions: SessionStore, session: str, turn_id: str, call_id: str) -> str | None:
    """The message in which a turn made a tool call; None if it made none."""
    query = Query(limit=_CALL_PAGE)
    while True:
        page = await sessions.history.page(session, query)
        for message in page.messages:
            headers = read_headers(message)
            if message.name != AI_OUTPUT or headers is None or headers.kind != "tool-input":
                continue
            if headers.run_id == turn_id and headers.field("toolCallId") == call_id:
                return headers.codec_message_id
        if page.next_cursor is None:
            return None
        query = replace(query, cursor=page.next_cursor)
