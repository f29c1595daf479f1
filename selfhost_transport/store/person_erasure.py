"""Erases a person, by client id: sessions that no one else uses; in others what the person sent, and the turns that answer it.

What is taken out of a session that others use is removed from the history; clients that are attached see these messages deleted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from pydantic import ConfigDict

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.link import Argument
from selfhost_transport.store.annotations import AnnotationStore
from selfhost_transport.store.ended_turns import GROUP
from selfhost_transport.store.entries import (
    Created,
    MessageOperation,
    PresenceChanged,
    Ref,
    pack_replaced_body,
    unpack_entry,
)
from selfhost_transport.store.erasure import ON_THE_WIRE, SessionErasure
from selfhost_transport.store.fields import ConnectionFields, DeadLetterFields, EndedFields
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.presence import DEFAULT_REMAIN_MS, Holder, PresenceStore
from selfhost_transport.store.push import PushStore
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.store.turn_store import CancelFilter, Scope, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.headers import read_headers
from selfhost_transport.wire.actions import AnnotationAction, PresenceAction
from selfhost_transport.wire.annotation import Annotation
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.serial import Position, parse_position

_PAGE: Final = 200
_MESSAGES_PER_STEP: Final = 50


@dataclass(slots=True)
class Traces:
    """What a session's history has of a person. `others`: whether anyone else has sent something."""

    publishes: dict[str, tuple[Message, ...]] = field(default_factory=dict)
    turns: set[str] = field(default_factory=set)
    questions: set[str] = field(default_factory=set)
    others: bool = False


@dataclass(frozen=True, slots=True)
class ErasedPerson:
    """What was erased. `erased`: whole sessions; `redacted`: sessions that others use, and how many publishes went from each."""

    __pydantic_config__: ClassVar[ConfigDict] = ON_THE_WIRE

    client_id: str
    erased: list[str]
    redacted: dict[str, int]
    subscriptions: int
    letters: int


class PersonErasure:
    """Erases people from one deployment. Raises StoreUnavailable."""

    def __init__(
        self,
        redis: RedisConnection,
        keys: Keyspace,
        options: StoreOptions,
        turns: TurnStore,
        presence: PresenceStore,
        annotations: AnnotationStore,
        push: PushStore,
        sessions: SessionErasure,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._options = options
        self._turns = turns
        self._presence = presence
        self._annotations = annotations
        self._push = push
        self._sessions = sessions
        self._scripts = SessionScripts(redis, keys)

    async def all_sessions(self) -> list[str]:
        """Every session, by a walk through all keys. Raises StoreUnsuitable where the user of Redis may not."""
        found: set[str] = set()
        for base in self._keys.bases():
            async for names in self._sessions.keys_matching(base, "s:*"):
                found.update(name.decode()[len(base) + 2 :] for name in names)
        return sorted(found)

    async def erase(self, person: str, sessions: Iterable[str], by: str) -> ErasedPerson:
        """Erase what these sessions have of a person, and what is outside of sessions; may be repeated."""
        erased, redacted = [], {}
        for session in sessions:
            await self._cancel(session, person, by)
            traces = await self.traces(session, person)
            if await self._is_alone(session, person, traces):
                await self._sessions.erase(session, by)
                erased.append(session)
            elif (taken := await self._redact(session, person, traces)) is not None:
                redacted[session] = taken
        subscriptions, letters = await self._take_pushes(person), await self._take_letters(person)
        return ErasedPerson(person, erased, redacted, subscriptions, letters)

    async def traces(self, session: str, person: str) -> Traces:
        """What the history of a session has of a person."""
        traces = Traces()
        rest: dict[str, tuple[Message, ...]] = {}
        async for position, messages in self._history(session):
            is_theirs = False
            for message in messages:
                is_theirs = self._note(traces, message, person) or is_theirs
            (traces.publishes if is_theirs else rest)[position] = messages
        # Of turns that are theirs, also what does not name them.
        for position, messages in rest.items():
            if any(_turn_of(message) in traces.turns for message in messages):
                traces.publishes[position] = messages
        return traces

    def _note(self, traces: Traces, message: Message, person: str) -> bool:
        headers = read_headers(message)
        owner = headers.get(h.RUN_CLIENT_ID) if headers is not None else None
        if person in (message.client_id, owner):
            if headers is not None and owner in (person, None) and headers.run_id is not None:
                traces.turns.add(headers.run_id)
            if message.client_id == person and headers is not None and headers.codec_message_id is not None:
                traces.questions.add(headers.codec_message_id)
            return True
        if _is_of_cancel(message) and headers is not None and person in headers.transport.values():
            return True
        # Who only cancelled does not use the session: that may have been an operator.
        traces.others = traces.others or not _is_of_cancel(message)
        return False

    async def _history(self, session: str) -> AsyncIterator[tuple[str, tuple[Message, ...]]]:
        key, after = f"{self._keys.base_of(session)}h:{session}", b"-"
        while items := await self._redis.command("XRANGE", key, after, "+", "COUNT", _PAGE):
            for item, fields in items:
                entry = unpack_entry(Position.parse_id(item.decode()), fields[1])
                if isinstance(entry, Created):
                    yield item.decode(), entry.messages
            after = b"(" + items[-1][0]

    async def _is_alone(self, session: str, person: str, traces: Traces) -> bool:
        """Whether the session is of this person only."""
        if traces.others or not traces.publishes:
            return False
        members = await self._presence.members(session)
        return all(member.client_id == person for member in members)

    async def _cancel(self, session: str, person: str, by: str) -> None:
        if person in (await self._owners(session)):
            message = Message(name=h.AI_CANCEL, client_id=by, extras=h.make_extras({h.CANCEL_ALL: "true"}))
            chosen = CancelFilter(Scope.OWNER, person)
            await self._turns.cancels.cancel(session, chosen, message, early=False, force=True)

    async def _owners(self, session: str) -> set[str]:
        return {record.owner for record in await self._turns.active(session)}

    # In sessions that others use

    async def _redact(self, session: str, person: str, traces: Traces) -> int | None:
        """Take out what is there of a person. Returns how many publishes; None where there was nothing at all."""
        found = await self._leave(session, person)
        found = await self._take_annotations(session, person) or found
        if not (found or traces.publishes):
            return None
        items: list[Argument] = []
        for turn in traces.turns:
            items += ["T", turn]
        for question in traces.questions:
            items += ["Q", question]
        taken = await self._take(session, items)
        for step in _steps(traces.publishes):
            taken += await self._take(
                session, [part for position in step for part in _deleted(position, step[position])]
            )
        await self._take_presence_history(session, person)
        base = self._keys.base_of(session)
        for turn in traces.turns:
            await self._sessions.take_items(f"{base}dead", DeadLetterFields.TURN, turn)
        return taken

    async def _take(self, session: str, items: Sequence[Argument]) -> int:
        return int(
            await self._scripts.run(
                "erase_of_person",
                session,
                items,
                window_ms=self._options.window_ms,
                retry_s=self._redis.read_s,
            )
        )

    async def _leave(self, session: str, person: str) -> bool:
        """Take the person out of the members."""
        members = await self._presence.members(session, client_id=person)
        for member in members:
            leave = PresenceMessage(action=PresenceAction.LEAVE, client_id=person, data="")
            await self._presence.change(
                session, await self._holder(session, member.connection_id or ""), [leave]
            )
        return bool(members)

    async def _holder(self, session: str, connection: str) -> Holder:
        """Who holds the members of a connection, so that its other members stay with it."""
        key = f"{self._keys.base_of(session)}o:{connection}"
        fields = (ConnectionFields.OWNER, ConnectionFields.NODE, ConnectionFields.REMAIN)
        owner, node, remain = await self._redis.command("HMGET", key, *fields)
        return Holder(
            connection, (owner or b"").decode(), (node or b"").decode(), int(remain or DEFAULT_REMAIN_MS)
        )

    async def _take_presence_history(self, session: str, person: str) -> None:
        key, after = f"{self._keys.base_of(session)}k:{session}", b"-"
        while items := await self._redis.command("XRANGE", key, after, "+", "COUNT", _PAGE):
            for item, fields in items:
                entry = unpack_entry(Position.parse_id(item.decode()), fields[1])
                if isinstance(entry, PresenceChanged) and any(
                    one.client_id == person for one in entry.presence
                ):
                    await self._redis.command("XDEL", key, item)
            after = b"(" + items[-1][0]

    async def _take_annotations(self, session: str, person: str) -> bool:
        """Take the person's annotations of messages back, and out of their lists."""
        found = False
        async for position, messages in self._history(session):
            for index in range(len(messages)):
                ref = Ref(Position.parse_id(position), index)
                found = await self._take_annotations_of(session, ref, person) or found
        return found

    async def _take_annotations_of(self, session: str, ref: Ref, person: str) -> bool:
        key = f"{self._keys.base_of(session)}b:{ref}:{session}"
        given, after = list[Annotation](), Position.ZERO
        while page := await self._annotations.page(session, ref, after=after, limit=_PAGE):
            given += [one for one in page if one.client_id == person]
            after = Position.parse_id(_position_of(page[-1]))
        kinds = {(one.type, one.name) for one in given}
        back = [
            (ref, Annotation(action=AnnotationAction.DELETE, type=kind, name=name, client_id=person))
            for kind, name in kinds
        ]
        if not back:
            return False
        written = await self._annotations.give(session, back)
        ids = [_position_of(one) for one in given] + [position.stream_id for position in written.positions]
        await self._redis.command("XDEL", key, *ids)
        return True

    # Outside of sessions

    async def _take_pushes(self, person: str) -> int:
        subscriptions = [one.subscription_id for one in await self._push.subscriptions(person)]
        removed = await self._push.unsubscribe(person, subscriptions) if subscriptions else 0
        for delivery in [one.delivery_id async for one in self._push.queued() if one.person == person]:
            await self._push.drop(delivery)
        for letter in [one.letter_id for one in await self._push.buried() if one.person == person]:
            await self._push.drop_buried(letter)
        return removed

    async def _take_letters(self, person: str) -> int:
        taken = 0
        for base in self._keys.bases():
            for exporter in await self._redis.command("HKEYS", f"{base}exporters") or []:
                name = exporter.decode()
                taken += await self._sessions.take_items(
                    f"{base}ended:{name}", EndedFields.OWNER, person, GROUP
                )
                taken += await self._sessions.take_items(
                    f"{base}undelivered:{name}", EndedFields.OWNER, person
                )
        return taken


def _is_of_cancel(message: Message) -> bool:
    """A cancel, or its refusal."""
    return (message.name or "").startswith(h.AI_CANCEL)


def _turn_of(message: Message) -> str | None:
    headers = read_headers(message)
    return headers.run_id if headers is not None else None


def _position_of(annotation: Annotation) -> str:
    return parse_position(annotation.serial or "")[0].stream_id


def _steps(publishes: dict[str, tuple[Message, ...]]) -> Iterable[dict[str, tuple[Message, ...]]]:
    """The publishes in steps of few messages."""
    step: dict[str, tuple[Message, ...]] = {}
    for position, messages in publishes.items():
        step[position] = messages
        if sum(map(len, step.values())) >= _MESSAGES_PER_STEP:
            yield step
            step = {}
    if step:
        yield step


def _deleted(position: str, messages: Sequence[Message]) -> list[Argument]:
    """One publish, and what readers get in the place of each of its messages: where it stood, and no one's name."""
    bodies = [pack_replaced_body(_without_content(message), MessageOperation()) for message in messages]
    return ["P", position, len(messages), *bodies]


def _without_content(message: Message) -> Message:
    headers = read_headers(message)
    if headers is None:
        return Message()
    kept = {name: value for name, value in headers.transport.items() if not name.endswith("client-id")}
    return Message(name=message.name, extras=h.make_extras(kept))
