"""How the turns of a session ended, from its history: the reason, and who cancelled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from selfhost_transport.store.history import HistoryReader, Query
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message

WIRE: Final = ConfigDict(alias_generator=to_camel, populate_by_name=True)
"""How what operators are shown is written over HTTP."""
# Messages of the history that are read at once, in search of turns that ended.
_PAGE = 200
_ANONYMOUS = "(anonymous)"


@dataclass(frozen=True, slots=True)
class EndedLine:
    """A turn that has its terminal. `reason`: complete, cancelled or error; `error`: why it failed.

    `cancelled_by`: client id of the requester of the cancel; None if the service cancelled, such as an abandoned session.
    """

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    turn: str
    reason: str
    owner: str
    agent: str
    position: str
    cancelled_by: str | None = None
    error_code: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Cancel:
    """A request to cancel, as it was published."""

    client_id: str
    headers: h.Headers

    def names(self, end: h.Headers) -> bool:
        """Whether the turn with this terminal is one of those it asked for."""
        asked, owner = self.headers.get, end.get(h.RUN_CLIENT_ID) or _ANONYMOUS
        if (turn := asked(h.RUN_ID)) is not None:
            return turn == end.run_id
        if (sent := asked(h.INPUT_CODEC_MESSAGE_ID)) is not None:
            return sent == end.get(h.INPUT_CODEC_MESSAGE_ID)
        if (client := asked(h.CANCEL_CLIENT_ID)) is not None:
            return client == owner
        return asked(h.CANCEL_ALL) is not None or self.client_id == owner


def ended_turns(messages: Iterable[Message]) -> Iterator[EndedLine]:
    """Of a session's history, oldest first, the turns that ended in it, in that order."""
    cancels: list[_Cancel] = []
    for message in messages:
        headers = h.read_headers(message)
        if headers is None:
            continue
        if message.name == h.AI_CANCEL:
            cancels.append(_Cancel(message.client_id or _ANONYMOUS, headers))
        elif message.name == h.AI_RUN_END:
            yield _line(message, headers, cancels)


def _line(message: Message, headers: h.Headers, cancels: list[_Cancel]) -> EndedLine:
    reason, code = headers.get(h.RUN_REASON) or "", headers.get(h.ERROR_CODE)
    by = next((one.client_id for one in reversed(cancels) if one.names(headers)), None)
    return EndedLine(
        turn=headers.run_id or "",
        reason=reason,
        owner=headers.get(h.RUN_CLIENT_ID) or _ANONYMOUS,
        agent=message.client_id or "",
        position=message.serial or "",
        cancelled_by=by if reason == "cancelled" else None,
        error_code=int(code) if code and code.isdecimal() else None,
        error=headers.get(h.ERROR_MESSAGE),
    )


async def last_ended(history: HistoryReader, session: str, count: int) -> list[EndedLine]:
    """The newest turns of a session that have ended, oldest first; at most `count`. Raises StoreUnavailable."""
    if count < 1:
        return []
    query, messages = Query(limit=_PAGE), list[Message]()
    while True:
        page = await history.page(session, query)
        messages += page.messages
        found = list(ended_turns(reversed(messages)))
        if len(found) >= count or page.next_cursor is None:
            return found[-count:]
        query = replace(query, cursor=page.next_cursor)
