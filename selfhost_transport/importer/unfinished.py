"""Turns that an imported history leaves open: their agent is elsewhere, so that no one would ever end them here."""

from __future__ import annotations

from typing import Final

from selfhost_transport.importer.placing import Placed, following
from selfhost_transport.store.history import HistoryReader, Query
from selfhost_transport.store.session_import import ImportedMessage
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.lifecycle import RunReason
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position

_PAGE: Final = 1000
_MOST: Final = 1000
"""Messages of one publish."""
_KEPT: Final = (h.RUN_ID, h.RUN_CLIENT_ID, h.INVOCATION_ID, h.INPUT_CLIENT_ID, h.INPUT_CODEC_MESSAGE_ID)


async def endings_of(history: HistoryReader, session: str, after: Position) -> Placed | None:
    """One publish that ends them all as cancelled; None where every turn has ended."""
    started: dict[str, Message] = {}
    ended: set[str] = set()
    query: Query | None = Query(limit=_PAGE, align=False)
    while query is not None:
        page = await history.page(session, query)
        for message in page.messages:
            headers = h.read_headers(message)
            if headers is None or headers.run_id is None:
                continue
            if message.name == h.AI_RUN_END:
                ended.add(headers.run_id)
            elif message.name == h.AI_RUN_START and headers.run_id not in ended:
                started.setdefault(headers.run_id, message)
        query = None if page.next_cursor is None else Query(limit=_PAGE, align=False, cursor=page.next_cursor)
    endings = [_ending(message) for message in reversed(started.values())][-_MOST:]
    return Placed(following(after), tuple(map(ImportedMessage, endings)), "") if endings else None


def _ending(start: Message) -> Message:
    headers = h.read_headers(start) or Headers({}, {})
    kept = [(name, headers.get(name)) for name in _KEPT]
    extras = h.make_extras(h.header_map(*kept, (h.RUN_REASON, RunReason.CANCELLED.value)))
    return Message(name=h.AI_RUN_END, client_id=start.client_id, extras=extras)
