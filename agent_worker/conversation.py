"""What was said in the session, as the model should see it; read from the history only when asked for."""

from __future__ import annotations

from collections.abc import Sequence

from selfhost_transport.store.history import HistoryReader, Query
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.values import text_of
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position

MAX_INPUT_MESSAGES = 1000


class Conversation:
    """The session's history around one turn."""

    def __init__(self, history: HistoryReader, lease: Lease, context: TurnContext) -> None:
        self._history = history
        self._lease = lease
        self._context = context
        self._input: list[Message] | None = None

    async def input(self) -> Sequence[Message]:
        """The messages of the send that started the turn; costs the same however long the session is."""
        if self._input is None:
            at = self._lease.input_position
            query = Query(limit=MAX_INPUT_MESSAGES, forwards=True, start_ms=at.ms, until=at, align=False)
            page = await self._history.page(self._lease.session, query)
            self._input = [message for message in page.messages if _position(message) == at]
        return self._input

    async def text(self) -> str:
        """The text parts of that send, joined."""
        parts = [text_of(message) for message in await self.input() if _is_text(message)]
        return "\n".join(parts)


def _position(message: Message) -> Position:
    return parse_position(message.serial or "")[0]


def _is_text(message: Message) -> bool:
    headers = h.read_headers(message)
    return headers is not None and headers.kind == "user-message" and headers.field("partType") == "text"
