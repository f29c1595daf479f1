"""Reading the history: each message once, where it was created, in its newest state (section 7.5)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from selfhost_transport.errors import NotFound
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.entries import (
    Created,
    Entry,
    Ref,
    Replaced,
    unpack_entry,
)
from selfhost_transport.store.fields import MessageFields as Record
from selfhost_transport.store.fields import SessionFields
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.message_states import MessageStates, complete, overlaid
from selfhost_transport.store.turn_spans import TurnSpans
from selfhost_transport.turns.headers import read_headers
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message, Version
from selfhost_transport.wire.serial import Position, parse_position
from selfhost_transport.wire.sizes import data_size

MAX_PAGE_EXTENSION = 1000
"""Messages a page may grow by, so as not to be cut inside a turn."""
MAX_PAGE_EXTENSION_BYTES = 4 * 1024 * 1024
"""Bytes of data it may grow by. A page that would grow more begins inside a turn; the next one has the rest."""

MAX_PAGE_BYTES = 8 * 1024 * 1024
"""Data of the messages that one page holds, unless the first of them alone has more."""
VERSIONS_PER_READ = 32
ENTRIES_PER_READ = 200
"""Publishes that are read and unpacked at once: other tasks wait that long, a few milliseconds."""


@dataclass(frozen=True, slots=True)
class RecordState:
    """A message as it is now, without serials; `version_id` is its version's position, '' if it has none."""

    ref: Ref
    message: Message
    version_id: str


@dataclass(frozen=True, slots=True)
class Query:
    """One page. `after`/`before` are exclusive cursors, `until` an inclusive bound on positions.

    `start_ms` and `end_ms` are inclusive. Newest first unless `forwards`. `align`: a page does not begin inside a turn: it
    grows towards older messages, up to the turn's question, so far as that is not out of bounds.
    `visible`: selects the messages that the reader may see; others are treated as absent.
    """

    limit: int = 100
    forwards: bool = False
    cursor: Ref | None = None
    until: Position | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    align: bool = True
    visible: Callable[[Message], bool] | None = None

    def shows(self, message: Message) -> bool:
        """Whether the reader may have a message."""
        return self.visible is None or self.visible(message)


@dataclass(slots=True)
class Page:
    """Messages in the order asked for; `next_cursor` is None on the last page, `next_serial` the same for clients.

    `truncated_at` is set on the page that holds the oldest messages, or that begins before it: up to there retention
    has taken them (HIS-6).
    """

    messages: list[Message] = field(default_factory=list)
    next_cursor: Ref | None = None
    next_serial: str | None = None
    truncated_at: Position | None = None


class HistoryReader:
    """Reads costs in proportion to the messages returned, never to the tokens that made them."""

    def __init__(self, redis: RedisConnection, keys: Keyspace) -> None:
        self._redis = redis
        self._keys = keys
        self._spans = TurnSpans(redis, keys)
        self._states = MessageStates(redis, keys, self._spans)

    async def page(self, session: str, query: Query) -> Page:
        """One page of messages, complete wire messages with serials and versions."""
        first: Ref | None = None
        while True:
            page, found = await self._page(session, query)
            # Retention may take all that was found while newer messages come: the conversation was never as empty as that.
            if page.messages or page.next_cursor is not None or found == first:
                return page
            first = found

    async def _page(self, session: str, query: Query) -> tuple[Page, Ref | None]:
        """A page, and the first of the messages that were found for it, whether they are still there or not."""
        refs = await self._refs(session, query, query.limit + 1)
        chosen = await self._within_bytes(session, refs[: query.limit])
        more = len(refs) > len(chosen)
        messages, cut_ms = await self._states.newest(session, chosen)
        if more and chosen and query.align and not query.forwards:
            async for grown, states in self._grown(session, query, chosen):
                chosen = [*chosen, *grown]
                messages += states
            # Retention may have gone on since the first part was read: one time counts for the whole page.
            cut_ms, beyond_end = await asyncio.gather(
                self._states.cut_ms(session), self._refs(session, replace(query, cursor=chosen[-1][0]), 1)
            )
            more = bool(beyond_end)
        messages = await self._states.without_taken(session, [one for _, one in chosen], messages, cut_ms)
        next_cursor = chosen[-1][0] if more and chosen else None
        next_serial = await self._serial(session, next_cursor, messages) if next_cursor else None
        oldest = query.forwards or next_cursor is None
        truncated_at = await self._truncated_at(session, query) if oldest else None
        # Once more, as they are now: changes may have made them something else.
        shown = [one for one in messages if query.shows(one)]
        return Page(shown, next_cursor, next_serial, truncated_at), (chosen[0][0] if chosen else None)

    async def _truncated_at(self, session: str, query: Query) -> Position | None:
        """Up to where retention has taken messages that the query would have found."""
        taken = await self._redis.command(
            "HGET", f"{self._keys.base_of(session)}s:{session}", SessionFields.TRIMMED
        )
        position = Position.parse_id(taken.decode()) if taken else None
        if position is not None and query.forwards and query.cursor is not None:
            return position if query.cursor.position < position else None
        return position

    async def message(self, session: str, ref: Ref) -> Message:
        """The newest version of one message. Raises NotFound."""
        found = await self.messages(session, [ref])
        if not found:
            raise NotFound("no such message in this session, or its retention has expired")
        return found[0]

    async def messages(self, session: str, refs: Sequence[Ref]) -> list[Message]:
        """The newest versions of several messages; those that do not exist are left out."""
        read = [self._states.created(session, ref) for ref in refs]  # all leave in one write
        created = zip(refs, await asyncio.gather(*read), strict=True)
        return await self._states.kept(session, [(ref, message) for ref, message in created if message])

    async def state(self, session: str, ref: Ref) -> RecordState:
        """The newest state of one message for a read-modify-write. Raises NotFound."""
        created = await self._states.created(session, ref)
        if created is None:
            raise NotFound("no such message in this session, or its retention has expired")
        record, data, _ = (await self._states.records(session, [ref]))[2][0]
        return RecordState(ref, overlaid(created, record, data), (record.get(Record.VERSION) or b"").decode())

    async def versions(self, session: str, ref: Ref, *, forwards: bool = True) -> list[Message]:
        """The create and every update and delete of a message, oldest first (section 7.5)."""
        chain = [one async for some in self.version_slices(session, ref) for one in some]
        return chain if forwards else chain[::-1]

    async def version_count(self, session: str, ref: Ref) -> int:
        """How many versions a message has, its create among them."""
        return 1 + int(await self._redis.command("XLEN", f"{self._keys.base_of(session)}v:{ref}:{session}"))

    async def version_slices(self, session: str, ref: Ref) -> AsyncIterator[list[Message]]:
        """The same, oldest first, a few at a time. Raises NotFound."""
        created = await self._states.created(session, ref)
        if created is None:
            raise NotFound("no such message in this session, or its retention has expired")
        epoch = await self._states.epoch(session)
        first = Version(ref.serial(epoch), ref.position.ms)
        yield [complete(created, ref, epoch, MessageAction.CREATE, first)]
        key, after = f"{self._keys.base_of(session)}v:{ref}:{session}", "-"
        while found := await self._redis.command("XRANGE", key, after, "+", "COUNT", VERSIONS_PER_READ):
            some = []
            for item in found:
                entry = unpack_entry(Position.parse_id(item[0].decode()), item[1][1])
                if isinstance(entry, Replaced):
                    version = entry.operation.version(entry.position, epoch)
                    some.append(complete(entry.message, ref, epoch, entry.action, version))
            yield some
            after = f"({found[-1][0].decode()}"

    async def _serial(self, session: str, ref: Ref, known: Sequence[Message]) -> str:
        epoch = parse_position(known[0].serial or "")[1] if known else await self._states.epoch(session)
        return ref.serial(epoch)

    def _history_key(self, session: str) -> str:
        return f"{self._keys.base_of(session)}h:{session}"

    async def _refs(self, session: str, query: Query, count: int) -> list[tuple[Ref, Message]]:
        """Creates in the query's order; a publish that the cursor cut is continued."""
        low, high = bounds(query)
        refs: list[tuple[Ref, Message]] = []
        size = 0
        # A page holds no more bytes than that, so further messages need not be read to know that there are more.
        while len(refs) < count and (size <= MAX_PAGE_BYTES or len(refs) < 2):
            if query.forwards:
                arguments = ("XRANGE", self._history_key(session), low, high)
            else:
                arguments = ("XREVRANGE", self._history_key(session), high, low)
            wanted = min(count - len(refs) + 1, ENTRIES_PER_READ)
            found = await self._redis.command(*arguments, "COUNT", wanted)
            for item in found or []:
                size += len(item[1][1])
                entry = unpack_entry(Position.parse_id(item[0].decode()), item[1][1])
                items = _items(entry, forwards=query.forwards)
                refs.extend((ref, one) for ref, one in items if beyond(ref, query) and query.shows(one))
            if not found or len(found) < wanted:
                break
            last = found[-1][0].decode()
            low, high = (f"({last}", high) if query.forwards else (low, f"({last}")
        return refs[:count]

    async def _within_bytes(
        self, session: str, found: list[tuple[Ref, Message]]
    ) -> list[tuple[Ref, Message]]:
        """As many of the first messages as a page may hold, by the length of their data; at least one."""
        if not found:
            return found
        base = self._keys.base_of(session)
        keys = [f"{base}x:{ref}:{session}" for ref, _ in found]
        lengths: list[int] = await self._redis.call(*scripts.call("text_sizes", (), keys))
        sizes = [max(length, data_size(one.data)) for length, (_, one) in zip(lengths, found, strict=True)]
        fitting = sum(total <= MAX_PAGE_BYTES for total in itertools.accumulate(sizes))
        return found[: max(1, fitting)]

    async def _grown(
        self, session: str, query: Query, chosen: list[tuple[Ref, Message]]
    ) -> AsyncIterator[tuple[list[tuple[Ref, Message]], list[Message]]]:
        """What a page grows by until no turn or publish in it continues beyond its end (ai-transport section 7.7)."""
        room, room_bytes = MAX_PAGE_EXTENSION, MAX_PAGE_EXTENSION_BYTES
        grown = await self._rest_of_publish(session, query, chosen)
        if grown:
            yield grown, (await self._states.newest(session, grown))[0]
        last = (grown or chosen)[-1][0]
        first = await self._spans.first_of(session, (message for _, message in [*chosen, *grown]))
        while first is not None and first < last.position and room > 0:
            start_ms = first.ms if query.start_ms is None else max(first.ms, query.start_ms)
            rest = replace(query, cursor=last, start_ms=start_ms)
            grown = [pair for pair in await self._refs(session, rest, room + 1) if pair[0].position >= first]
            if not grown or len(grown) > room:
                return
            messages = await self._states.newest_within(session, grown, room_bytes)
            if messages is None:
                return
            yield grown, messages
            room -= len(grown)
            room_bytes -= sum(data_size(message.data) for message in messages)
            last = grown[-1][0]
            first = await self._spans.first_of(session, (message for _, message in grown))

    async def _rest_of_publish(
        self, session: str, query: Query, chosen: list[tuple[Ref, Message]]
    ) -> list[tuple[Ref, Message]]:
        """The rest of the publish that the cut fell into, if it is part of a conversation."""
        last, message = chosen[-1]
        if last.index == 0 or not _is_of_conversation(message):
            return []
        rest = await self._refs(session, replace(query, cursor=last), last.index)
        return [pair for pair in rest if pair[0].position == last.position]


def _is_of_conversation(message: Message) -> bool:
    headers = read_headers(message)
    return headers is not None and (headers.run_id is not None or headers.codec_message_id is not None)


def bounds(query: Query) -> tuple[str, str]:
    """The lowest and highest stream id a query may touch; the cursor's own publish is read again."""
    low, high = "-", "+"
    if query.start_ms is not None:
        low = f"{max(0, query.start_ms)}-0"
    if query.end_ms is not None:
        high = str(max(0, query.end_ms))
    if query.until is not None and (query.end_ms is None or query.until.ms <= query.end_ms):
        high = query.until.stream_id
    if query.cursor is not None:
        at = query.cursor.position
        if query.forwards:
            low = at.stream_id
        else:
            high = at.stream_id
    return low, high


def _items(entry: Entry, *, forwards: bool) -> list[tuple[Ref, Message]]:
    if not isinstance(entry, Created):
        return []
    items = [(Ref(entry.position, index), message) for index, message in enumerate(entry.messages)]
    return items if forwards else items[::-1]


def beyond(ref: Ref, query: Query) -> bool:
    """Whether an item lies after the query's cursor, in the query's direction."""
    if query.cursor is None:
        return True
    here, cursor = (ref.position, ref.index), (query.cursor.position, query.cursor.index)
    return here > cursor if query.forwards else here < cursor
