"""What happened in one turn, from the history of its session."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from selfhost_transport.commands.ended import ended_turns
from selfhost_transport.store.history import HistoryReader, Query
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import turn_id_for
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import parse_position

_PAGE: Final = 200
_PAGES: Final = 25
_NAMES: Final = {
    h.AI_RUN_QUEUED: "queued",
    h.AI_RUN_START: "started",
    h.AI_RUN_SUSPEND: "suspended",
    h.AI_RUN_ESCALATED: "escalated",
    h.AI_RUN_RESUME: "resumed",
    h.AI_CANCEL_DENIED: "cancel denied",
    h.AI_CANCEL_ALLOWED: "cancel allowed",
}


class TimelineEntry(BaseModel):
    """One thing that happened. `time_ms`: by the clock of Redis; `by`: the client id of its author; `detail`: more."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    time_ms: int
    what: str
    by: str | None = None
    detail: str | None = None


async def timeline_of(history: HistoryReader, session: str, turn_id: str) -> list[TimelineEntry]:
    """The moments of a turn, oldest first; none for one that is not in the newest 5,000 messages."""
    messages: list[Message] = []
    query = Query(limit=_PAGE)
    for _ in range(_PAGES):
        page = await history.page(session, query)
        messages += page.messages
        if page.next_cursor is None or any(_is_input(one, session, turn_id) for one in page.messages):
            break
        query = replace(query, cursor=page.next_cursor)
    return _moments(messages[::-1], session, turn_id)


def _moments(messages: list[Message], session: str, turn_id: str) -> list[TimelineEntry]:
    ends = {line.turn: line for line in ended_turns(messages)}
    found: list[TimelineEntry] = []
    has_output = False
    for message in messages:
        headers = h.read_headers(message)
        if headers is None:
            continue
        if _is_input(message, session, turn_id):
            found.append(_moment(message, "sent"))
        if headers.run_id != turn_id:
            continue
        if message.name == h.AI_OUTPUT:
            if not has_output:
                found.append(_moment(message, "first output"))
                has_output = True
            if tool := headers.field("toolName"):
                found.append(_moment(message, "tool", tool))
        elif message.name == h.AI_CANCEL:
            found.append(_moment(message, "cancel asked"))
        elif message.name == h.AI_INPUT:
            found.append(_moment(message, "input"))
        elif message.name == h.AI_RUN_END:
            line = ends[turn_id]
            detail = line.error or (f"by {line.cancelled_by}" if line.cancelled_by else None)
            found.append(_moment(message, line.reason, detail))
        elif message.name in _NAMES:
            found.append(_moment(message, _NAMES[message.name]))
    return found


def _moment(message: Message, what: str, detail: str | None = None) -> TimelineEntry:
    position = parse_position(message.serial or "")[0]
    return TimelineEntry(time_ms=position.ms, what=what, by=message.client_id, detail=detail)


def _is_input(message: Message, session: str, turn_id: str) -> bool:
    """Whether it is what the turn answers."""
    headers = h.read_headers(message) if message.name == h.AI_INPUT else None
    if headers is None or headers.run_id is not None or headers.codec_message_id is None:
        return False
    return turn_id_for(session, headers.codec_message_id) == turn_id
