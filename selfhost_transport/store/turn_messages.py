"""The whole messages of one turn, read from the part of the history it lies in (HYD-1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from selfhost_transport.store.ended_turns import Ended
from selfhost_transport.store.history import HistoryReader, Page, Query
from selfhost_transport.store.turn_spans import run_id_of
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import ConversationMessage
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class TurnMessages:
    """Input and output of a turn in order. `truncated`: retention has taken some of them."""

    messages: tuple[ConversationMessage, ...]
    truncated: bool


async def read_turn(history: HistoryReader, ended: Ended) -> TurnMessages:
    """The messages of a turn that ended, over all its suspensions, without the output of failed attempts.

    Reads the session from the turn's input to its terminal, whatever else happened meanwhile. Raises StoreUnavailable.
    """
    tree, truncated = SessionTree(ended.session), False
    inputs: list[str] = []
    query = Query(limit=_PAGE, forwards=True, start_ms=ended.first.ms, until=ended.last, align=False)
    while True:
        page = await history.page(ended.session, query)
        truncated = truncated or _is_cut(page, ended.first)
        for message in page.messages:
            if _is_input(message, ended.first):
                inputs += [_codec_message_id(message)]
            elif run_id_of(message) != ended.turn_id:
                continue
            tree.apply(message)
        if page.next_cursor is None:
            return TurnMessages(_messages(tree, inputs, ended.turn_id), truncated)
        query = replace(query, cursor=page.next_cursor)


def _is_cut(page: Page, first: Position) -> bool:
    return page.truncated_at is not None and page.truncated_at >= first


def _is_input(message: Message, first: Position) -> bool:
    return parse_position(message.serial or "")[0] == first and message.name == h.AI_INPUT


def _codec_message_id(message: Message) -> str:
    headers = h.read_headers(message)
    return (headers.codec_message_id if headers else None) or ""


def _messages(tree: SessionTree, inputs: list[str], turn_id: str) -> tuple[ConversationMessage, ...]:
    found = {said.codec_message_id: said for key in inputs if (said := tree.message(key)) is not None}
    node = tree.run_node(turn_id)
    if node is not None:
        for state in node.messages.values():
            found.setdefault(state.codec_message_id, state.snapshot())
    return tuple(found.values())
