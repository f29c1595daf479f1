"""A session's conversation, folded from its stored messages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from selfhost_transport.store.history import Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns.headers import AI_OUTPUT, read_headers
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.view import View
from selfhost_transport.turns.withholding import NOTHING, Hidden, shown
from selfhost_transport.wire.serial import Position

_CALL_PAGE = 200


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages and turns of the newest branch as JSON values; `truncated`: older messages exist.

    `truncated_at`: where the oldest ones stood that retention has taken, if these are all that is left.
    """

    messages: list[dict[str, Any]]
    turns: list[dict[str, Any]]
    truncated: bool
    truncated_at: Position | None = None

    def before(self, codec_message_id: str) -> str | None:
        """The message that one with this id follows: its predecessor if it is there, else the last one."""
        ids = [str(message["codecMessageId"]) for message in self.messages]
        if codec_message_id in ids:
            ids = ids[: ids.index(codec_message_id)]
        return ids[-1] if ids else None


async def read_conversation(
    sessions: SessionStore, session: str, limit: int, hidden: Hidden = NOTHING
) -> Conversation:
    """The conversation in the newest `limit` stored messages, or some more: turns are not cut."""
    page = await sessions.history.page(session, Query(limit=limit, visible=shown(hidden)))
    tree = SessionTree(session)
    for message in reversed(page.messages):
        tree.apply(message)
    view = View(tree)
    return Conversation(
        messages=[message.to_json() for message in view.messages()],
        turns=[
            {**run.to_json(), "status": run.shown_status.value, "agent": run.agent_client_id}
            for run in view.runs()
        ],
        truncated=page.next_cursor is not None,
        truncated_at=page.truncated_at,
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
