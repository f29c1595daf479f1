"""Dead letters: turns that failed because their workers were lost, and sending them again (DUR-11)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from selfhost_transport.errors import NotFound
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.fields import DeadLetterFields, TurnFields
from selfhost_transport.store.history import Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_request import build_turn_request
from selfhost_transport.store.turn_store import Accepted, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A turn whose attempts were used up by workers that died. `letter_id` names it: `<bucket>/<position>`."""

    letter_id: str
    session: str
    turn_id: str
    attempts: int
    # The last worker that tried it.
    worker: str
    # Milliseconds since the epoch.
    time_ms: int


class DeadLetters:
    """The dead letters of a deployment. Raises StoreUnavailable besides what each method names."""

    def __init__(self, turns: TurnStore, sessions: SessionStore) -> None:
        self._turns = turns
        self._sessions = sessions

    async def all(self) -> list[DeadLetter]:
        """Every letter, oldest first."""
        found: list[DeadLetter] = []
        for bucket in range(self._turns.keys.buckets):
            items = await self._turns.redis.command("XRANGE", self._key(bucket), "-", "+")
            found += [_letter(bucket, item[0], item[1]) for item in items or []]
        return sorted(found, key=lambda letter: letter.time_ms)

    async def requeue(self, letter_id: str) -> Accepted:
        """Send the letter's message again, as an edit of the lost one; its turn stays ended (TRN-7).

        The turn has the same owner and agent. Requeuing a letter twice is requeuing it once. Raises NotFound for a
        letter, or a message, that is no longer there.
        """
        letter = await self._letter(letter_id)
        record = await self._turns.record(letter.session, letter.turn_id)
        messages = await self._messages(letter)
        if record is None or not messages:
            raise NotFound(f"the message of dead letter {letter_id} is no longer stored")
        again = [_again(message, letter_id) for message in messages]
        accepted = await self._turns.submit(build_turn_request(letter.session, again, agent=record.agent))
        await self._turns.redis.command("XDEL", self._key(_bucket(letter_id)), letter_id.partition("/")[2])
        return accepted

    async def _letter(self, letter_id: str) -> DeadLetter:
        position = letter_id.partition("/")[2]
        bucket = _bucket(letter_id)
        items = await self._turns.redis.command("XRANGE", self._key(bucket), position, position)
        if not items:
            raise NotFound(f"there is no dead letter {letter_id}")
        return _letter(bucket, items[0][0], items[0][1])

    async def _messages(self, letter: DeadLetter) -> Sequence[Message]:
        """The send that started the turn."""
        key = self._turns.keys.of_item("t", letter.turn_id, letter.session)
        packed = await self._turns.redis.command("HGET", key, TurnFields.INPUT_POSITION)
        if packed is None:
            return []
        at = Position.parse_id(packed.decode())
        # From the publish itself on: others of the same millisecond may hold any number of messages.
        query = Query(limit=_PAGE, forwards=True, cursor=Ref(at, -1), until=at, align=False)
        page = await self._sessions.history.page(letter.session, query)
        return [message for message in page.messages if parse_position(message.serial or "")[0] == at]

    def _key(self, bucket: int) -> str:
        return f"{self._turns.keys.base(bucket)}dead"


def _bucket(letter_id: str) -> int:
    number, slash, position = letter_id.partition("/")
    if not number.isdecimal() or not slash or not position:
        raise NotFound(f"{letter_id!r} is not the id of a dead letter; see `dead list`")
    return int(number)


def _letter(bucket: int, position: bytes, packed: list[bytes]) -> DeadLetter:
    fields = {name.decode(): value.decode() for name, value in zip(packed[::2], packed[1::2], strict=True)}
    return DeadLetter(
        letter_id=f"{bucket}/{position.decode()}",
        session=fields[DeadLetterFields.SESSION],
        turn_id=fields[DeadLetterFields.TURN],
        attempts=int(fields[DeadLetterFields.ATTEMPTS]),
        worker=fields.get(DeadLetterFields.WORKER, ""),
        time_ms=Position.parse_id(position.decode()).ms,
    )


def _again(message: Message, letter_id: str) -> Message:
    """The same message under ids of its own, in place of the first one (section 8.10)."""
    headers = h.read_headers(message)
    if headers is None:
        return replace(message, serial=None, version=None)
    transport = dict(headers.transport)
    for name in (h.CODEC_MESSAGE_ID, h.EVENT_ID):
        if name in transport:
            transport[name] = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{letter_id} {transport[name]}"))
    if headers.kind != "regenerate" and headers.codec_message_id is not None:
        transport[h.FORK_OF] = headers.codec_message_id
    return Message(
        name=message.name,
        data=message.data,
        encoding=message.encoding,
        client_id=message.client_id,
        extras=h.make_extras(transport, dict(headers.codec)),
    )
