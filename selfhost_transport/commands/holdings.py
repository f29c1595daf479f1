"""What a deployment holds of a session, as lines of JSON: for `export SESSION`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

from pydantic import ConfigDict

from selfhost_transport.commands.ended import WIRE
from selfhost_transport.errors import NotFound
from selfhost_transport.store.ended_turns import Ended
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.fields import SessionFields
from selfhost_transport.store.history import Query
from selfhost_transport.store.names import whole
from selfhost_transport.store.stores import Stores
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.annotation import encode_annotation
from selfhost_transport.wire.message import Format, Message, encode_message
from selfhost_transport.wire.presence import encode_presence
from selfhost_transport.wire.serial import Position, format_position, parse_position

Line = dict[str, Any]
_PAGE: Final = 200
_CHANGED: Final = frozenset({MessageAction.UPDATE, MessageAction.DELETE})


@dataclass(frozen=True, slots=True)
class SessionHoldings:
    """How much there is of a session."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    session: str
    publishes: int
    open_turns: int
    members: int


async def holdings_of(stores: Stores, session: str) -> SessionHoldings:
    """How much there is of a session. Raises NotFound."""
    base, redis = stores.keys.base_of(session), stores.redis
    if not await redis.command("EXISTS", f"{base}s:{session}", f"{base}erasing:{session}"):
        raise NotFound(
            f"the session {session!r} does not exist under the prefix {stores.keys.prefix!r}; "
            "`inspect` lists those there are"
        )
    history = sum([int(await redis.command("XLEN", f"{base}{name}:{session}")) for name in ("h", "erasing")])
    return SessionHoldings(
        session=session,
        publishes=history,
        open_turns=int(await redis.command("HLEN", f"{base}a:{session}")),
        members=int(await redis.command("HLEN", f"{base}r:{session}")),
    )


class SessionLines:
    """The lines of one session. Messages come as they are now, in their order; what ends soon by itself is left out:
    the live log, and receipts of sends."""

    def __init__(self, stores: Stores, session: str) -> None:
        self._stores = stores
        self._session = session
        self._base = stores.keys.base_of(session)

    async def all(self) -> AsyncIterator[Line]:
        """Every line. Raises NotFound."""
        await holdings_of(self._stores, self._session)
        async for line in self.everything():
            yield line

    async def everything(self) -> AsyncIterator[Line]:
        """The same; nothing of a session that does not exist."""
        if not await self._stores.sessions.exists(self._session):
            return
        yield await self._about()
        async for message in self.messages():
            yield self._line("message", message=encode_message(message, Format.JSON))
            async for line in self._changes(message):
                yield line
        for part in (self._turns, self._members, self._presence, self._letters, self._pushes):
            async for line in part():
                yield line

    def _line(self, kind: str, **content: Any) -> Line:
        return {"kind": kind, "session": self._session, **content}

    async def _about(self) -> Line:
        found = await self._stores.redis.command(
            "HMGET", f"{self._base}s:{self._session}", SessionFields.EPOCH, SessionFields.RETENTION
        )
        head = await self._stores.sessions.head(self._session)
        epoch = (found[0] or b"").decode()
        return self._line(
            "session",
            position=format_position(head, epoch),
            retentionMs=int(found[1]) if found[1] else None,
        )

    async def messages(self) -> AsyncIterator[Message]:
        """As they are now, oldest first."""
        query = Query(limit=_PAGE, forwards=True, align=False)
        while True:
            page = await self._stores.history.page(self._session, query)
            for message in page.messages:
                yield message
            if page.next_cursor is None:
                return
            query = Query(limit=_PAGE, forwards=True, align=False, cursor=page.next_cursor)

    async def _changes(self, message: Message) -> AsyncIterator[Line]:
        """Earlier versions of a message, and its annotations."""
        ref = ref_of(message)
        history = self._stores.history
        if message.action in _CHANGED and await history.version_count(self._session, ref) > 1:
            for version in await history.versions(self._session, ref):
                yield self._line("version", message=encode_message(version, Format.JSON))
        after = Position.ZERO
        while message.annotations is not None:
            found = await self._stores.annotations.page(self._session, ref, after=after, limit=_PAGE)
            for one in found:
                yield self._line("annotation", annotation=encode_annotation(one, Format.JSON))
            if len(found) < _PAGE:
                return
            after = parse_position(found[-1].serial or "")[0]

    async def turn_ids(self) -> list[str]:
        """Turns that are known, by the index of turns."""
        fields = await self._stores.redis.command("HKEYS", f"{self._base}g:{self._session}") or []
        return [whole(field.decode()) for field in fields if b" " not in field]

    async def _turns(self) -> AsyncIterator[Line]:
        for turn in await self.turn_ids():
            record = await self._stores.turns.record(self._session, turn)
            if record is None:
                yield self._line("turn", turnId=turn)
                continue
            yield self._line(
                "turn", turnId=turn, status=record.status, agent=record.agent, owner=record.owner or None,
                attempts=record.attempts,
            )  # fmt: skip

    async def _members(self) -> AsyncIterator[Line]:
        for member in await self._stores.presence.members(self._session):
            yield self._line("member", presence=encode_presence(member, Format.JSON))

    async def _presence(self) -> AsyncIterator[Line]:
        cursor = None
        while True:
            query = Query(limit=_PAGE, forwards=True, cursor=cursor)
            page = await self._stores.presence.history(self._session, query)
            for event in page.events:
                yield self._line("presence", presence=encode_presence(event, Format.JSON))
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _letters(self) -> AsyncIterator[Line]:
        for letter in await self._stores.dead_letters.all():
            if letter.session == self._session:
                yield self._line(
                    "deadLetter", turnId=letter.turn_id, letterId=letter.letter_id, timeMs=letter.time_ms
                )
        for exporter in await self._stores.redis.command("HKEYS", f"{self._base}exporters") or []:
            queue = self._stores.ended_turns(exporter.decode())
            for ended in await queue.queued(self._session):
                yield self._line("waiting", exporter=queue.exporter, **_ended(ended))
            for given_up in await queue.buried():
                if given_up.ended.session == self._session:
                    about = _ended(given_up.ended)
                    yield self._line("undelivered", exporter=queue.exporter, reason=given_up.reason, **about)

    async def _pushes(self) -> AsyncIterator[Line]:
        async for delivery in self._stores.push.queued():
            if delivery.content.get("session") == self._session:
                yield self._line("push", clientId=delivery.person, content=delivery.content)
        for given_up in await self._stores.push.buried():
            if given_up.content.get("session") == self._session:
                yield self._line(
                    "undeliveredPush", clientId=given_up.person, content=given_up.content, reason=given_up.reason
                )  # fmt: skip


async def lines_of_person(stores: Stores, person: str, sessions: Sequence[str] | None) -> AsyncIterator[Line]:
    """What these sessions, or all, have of a person, by client id; and what is outside of sessions.

    Of a session: what the person sent, what answers it, and whatever else names them. Raises StoreUnsuitable without the right
    to walk through all keys where no sessions are given.
    """
    for session in await stores.person_erasure.all_sessions() if sessions is None else sessions:
        async for line in SessionLines(stores, session).everything():
            if _names(line, person):
                yield line
    for one in await stores.push.subscriptions(person):
        yield {"kind": "pushSubscription", "endpoint": one.endpoint, "expiresMs": one.expires_ms}


def _names(content: Any, person: str) -> bool:
    """Whether a line has a client id in it; not one that only reacted to a message of someone else."""
    if isinstance(content, dict):
        return any(name != "annotations" and _names(value, person) for name, value in content.items())
    if isinstance(content, list):
        return any(_names(value, person) for value in content)
    return bool(content == person)


def ref_of(message: Message) -> Ref:
    """Where a message of the history stands."""
    position, _, index = parse_position(message.serial or "")
    return Ref(position, index or 0)


def _ended(ended: Ended) -> Line:
    return {"turnId": ended.turn_id, "event": ended.event, "owner": ended.owner or None}


def holdings_text(found: SessionHoldings) -> str:
    """For people."""
    shown = asdict(found)
    return ", ".join(
        f"{shown[name]} {name.replace('_', ' ')}" for name in ("publishes", "open_turns", "members")
    )
