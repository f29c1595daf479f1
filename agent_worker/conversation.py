"""What was said in the session, as the model should see it; read from the history only when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from selfhost_transport.store.history import HistoryReader, Query
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.prompt import PartialAnswers, PromptMessage, build_prompt
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.values import text_of
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position

MAX_INPUT_MESSAGES = 1000
MAX_MESSAGES = 20_000
"""How far back a conversation is read, in messages of the session."""
PAGE = 500


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
        """The text parts of that send; of a regenerate, which has none, those of the message it answers again."""
        parts = [text_of(message) for message in await self.input() if _is_text(message)]
        if parts or not self._context.msg_regenerate:
            return "\n".join(parts)
        asked = [message for message in await self.messages() if message.role == h.ROLE_USER]
        return "\n".join(text_parts(asked[-1].message)) if asked else ""

    async def messages(self, partial_answers: PartialAnswers = PartialAnswers.KEEP) -> list[PromptMessage]:
        """The conversation along the selected branch, oldest first, the message to be answered last (BRA-11).

        Answers that were interrupted are kept and marked, unless `partial_answers` says otherwise (INT-25).
        """
        tree = SessionTree(self._lease.session)
        for message in reversed(await self._whole_history()):
            tree.apply(message)
        trigger = self._context.input_codec_message_id or ""
        return build_prompt(tree, trigger, partial_answers=partial_answers)

    async def _whole_history(self) -> list[Message]:
        """Newest first."""
        found: list[Message] = []
        query = Query(limit=PAGE)
        while len(found) < MAX_MESSAGES:
            page = await self._history.page(self._lease.session, query)
            found += page.messages
            if page.next_cursor is None:
                break
            query = replace(query, cursor=page.next_cursor)
        return found


def text_parts(message: ui.UIMessage) -> list[str]:
    """The texts of a message, without its reasoning and tools."""
    return [part.text for part in message.parts if isinstance(part, ui.TextPart)]


def _position(message: Message) -> Position:
    return parse_position(message.serial or "")[0]


def _is_text(message: Message) -> bool:
    headers = h.read_headers(message)
    return headers is not None and headers.kind == "user-message" and headers.field("partType") == "text"
