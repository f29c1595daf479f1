"""Where turns begin and end in a history: pages are cut between them, and retention takes them as a whole.

The scripts note a turn's span while it is written (`_session.lua`). A turn begins with its question, which has no run id:
the question's codec message id leads to the turn that answers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.names import pair, part
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position


class TurnSpan(NamedTuple):
    """First and last position of a turn, or of a question that waits for one. `last` None: it is open."""

    first: Position
    last: Position | None


class WrittenTo(NamedTuple):
    """A turn that a publish belongs to, the question it answers and what it hangs below ('': unknown).

    `turn` '': a question alone.
    """

    turn: str
    question: str = ""
    parent: str = ""


class TurnSpans:
    """Reads the spans of a session's turns. Raises StoreUnavailable."""

    def __init__(self, redis: RedisConnection, keys: Keyspace) -> None:
        self._redis = redis
        self._keys = keys

    async def first_of(self, session: str, messages: Iterable[Message]) -> Position | None:
        """The first position of the turns that these messages belong to; None: they belong to none."""
        turns = {turn for message in messages if (turn := run_id_of(message)) is not None}
        spans = await self._read(session, {part(turn) for turn in turns})
        return min((span.first for span in spans.values()), default=None)

    async def taken(self, session: str, messages: Sequence[Message], cut_ms: int) -> list[bool]:
        """Of messages created before `cut_ms`, up to where retention has taken turns: which are taken.

        A turn is as old as its end; one that is open is kept, and with a turn its question.
        """
        fields = [_field_of(message) for message in messages]
        spans = await self._read(session, {field for field in fields if field is not None})
        return [field is None or _is_taken(spans.get(field), cut_ms) for field in fields]

    async def _read(self, session: str, fields: Iterable[str]) -> dict[str, TurnSpan]:
        """Spans of turns, and of questions: of the turn that answers one."""
        found = await self._values(session, list(fields))
        answers = {field: part(value[1:]) for field, value in found.items() if value.startswith(">")}
        turns = await self._values(session, list(set(answers.values())))
        found |= {field: turns.get(turn, "") for field, turn in answers.items()}
        return {field: _span(value) for field, value in found.items() if value}

    async def _values(self, session: str, fields: list[str]) -> dict[str, str]:
        if not fields:
            return {}
        key = f"{self._keys.base_of(session)}g:{session}"
        values = await self._redis.command("HMGET", key, *fields)
        return {field: value.decode() for field, value in zip(fields, values, strict=True) if value}


def written_to(messages: Iterable[Message]) -> list[WrittenTo]:
    """What a publish adds to: each turn once, and the questions that no turn answers yet."""
    turns: dict[str, WrittenTo] = {}
    questions: dict[str, None] = {}
    for message in messages:
        headers = h.read_headers(message)
        if headers is None:
            continue
        if headers.run_id:
            found = turns.get(headers.run_id, WrittenTo(headers.run_id))
            question = found.question or headers.input_codec_message_id or ""
            parent = (headers.parent or "") if message.name == h.AI_RUN_START else ""
            turns[headers.run_id] = WrittenTo(headers.run_id, question, found.parent or parent)
        elif headers.codec_message_id and message.name == h.AI_INPUT:
            questions[headers.codec_message_id] = None
    return [*turns.values(), *(WrittenTo("", question) for question in questions)]


def run_id_of(message: Message) -> str | None:
    """The turn a message belongs to, from its AI Transport headers."""
    headers = h.read_headers(message)
    return headers.run_id if headers is not None else None


def _field_of(message: Message) -> str | None:
    """The index field for a message; None for an application's own."""
    headers = h.read_headers(message)
    if headers is None:
        return None
    if headers.run_id is not None:
        return part(headers.run_id)
    return None if headers.codec_message_id is None else pair("q", headers.codec_message_id)


def _span(value: str) -> TurnSpan:
    first, _, last = value.partition(" ")
    return TurnSpan(Position.parse_id(first), Position.parse_id(last) if last else None)


def _is_taken(span: TurnSpan | None, cut_ms: int) -> bool:
    return span is None or (span.last is not None and span.last.ms < cut_ms)
