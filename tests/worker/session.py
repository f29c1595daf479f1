"""A session as the tests of the worker see it: what is sent into it, and what its log holds."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import Appended, Created, Entry
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_request import build_turn_request
from selfhost_transport.store.turn_store import (
    Accepted,
    CancelFilter,
    Cancelled,
    Policy,
    Scope,
    TurnRecord,
    TurnStore,
)
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position
from tests.processes import wait_until

ENDED = ("completed", "cancelled", "failed")


def user_message(text: str, client_id: str = "alice", parent: str | None = None) -> Message:
    """What a client publishes to send a text."""
    transport = h.header_map(
        (h.ROLE, h.ROLE_USER),
        (h.CODEC_MESSAGE_ID, str(uuid.uuid4())),
        (h.RUN_CLIENT_ID, client_id),
        (h.PARENT, parent),
        (h.EVENT_ID, str(uuid.uuid4())),
        (h.STREAM, "false"),
        (h.DISCRETE, "true"),
    )
    codec = {h.KIND: "user-message", "messageId": str(uuid.uuid4()), "partType": "text"}
    return Message(name=h.AI_INPUT, data=text, client_id=client_id, extras=h.make_extras(transport, codec))


@dataclass(frozen=True, slots=True)
class Output:
    """An assistant message of a turn, as the history shows it."""

    kind: str
    text: str
    status: str | None
    step_start: str | None


class Room:
    """One session on a real Redis."""

    def __init__(self, connection: RedisConnection, keys: Keyspace, name: str = "room") -> None:
        self.name = name
        self.turns = TurnStore(connection, keys)
        self.sessions = SessionStore(connection, keys)

    async def send(
        self,
        text: str,
        *,
        agent: str = "assistant",
        client_id: str = "alice",
        max_attempts: int = 3,
        policy: Policy = Policy.CONCURRENT,
        parent: str | None = None,
    ) -> str:
        """Send a text; the id of its turn."""
        accepted = await self.submit(
            text, agent=agent, client_id=client_id, max_attempts=max_attempts, policy=policy, parent=parent
        )
        return accepted.turn_id

    async def submit(
        self,
        text: str,
        *,
        agent: str = "assistant",
        client_id: str = "alice",
        max_attempts: int = 3,
        policy: Policy = Policy.CONCURRENT,
        parent: str | None = None,
    ) -> Accepted:
        """Send a text; what the store answers."""
        message = user_message(text, client_id, parent)
        return await self.turns.submit(
            build_turn_request(self.name, [message], agent=agent, max_attempts=max_attempts, policy=policy)
        )

    async def cancel(self, turn_id: str, client_id: str = "alice") -> Cancelled:
        """Cancel one turn."""
        message = Message(name=h.AI_CANCEL, client_id=client_id, extras=h.make_extras({h.RUN_ID: turn_id}))
        return await self.turns.cancels.cancel(self.name, CancelFilter(Scope.TURN, turn_id), message)

    async def record(self, turn_id: str) -> TurnRecord:
        """What the store knows of a turn."""
        record = await self.turns.record(self.name, turn_id)
        assert record is not None
        return record

    async def ended(self, turn_id: str, timeout: float = 30.0) -> TurnRecord:
        """Wait for a turn's terminal."""

        async def look() -> TurnRecord | None:
            record = await self.record(turn_id)
            return record if record.status in ENDED else None

        record = await wait_until(look, timeout, f"the end of turn {turn_id}")
        assert record is not None
        return record

    async def log(self) -> list[Entry]:
        """The whole live log."""
        return await self.sessions.read_after(self.name, Position.ZERO, 1_000_000)

    async def history(self) -> list[Message]:
        """Every message, oldest first, in its newest state."""
        page = await self.sessions.history.page(self.name, Query(limit=1_000_000, forwards=True))
        return page.messages

    async def of_turn(self, turn_id: str) -> list[Message]:
        """The messages of one turn."""
        return [message for message in await self.history() if run_of(message) == turn_id]

    async def names(self, turn_id: str) -> list[str]:
        """The life-cycle of one turn as the history shows it: names, and the kinds of its outputs."""
        return [_label(message) for message in await self.of_turn(turn_id)]

    async def outputs(self, turn_id: str) -> list[Output]:
        """The streamed messages of one turn, superseded attempts included."""
        found = []
        for message in await self.of_turn(turn_id):
            headers = h.read_headers(message)
            if headers is not None and headers.is_stream:
                step_start = headers.get(h.STEP_START_SERIAL)
                found.append(Output(headers.kind, str(message.data or ""), headers.status, step_start))
        return found

    async def text(self, turn_id: str) -> str:
        """The text of a turn's last attempt."""
        texts = [output for output in await self.outputs(turn_id) if output.kind == "text"]
        last = max((output.step_start or "" for output in texts), default="")
        return "".join(output.text for output in texts if output.step_start == last)

    async def terminals(self, turn_id: str) -> list[str]:
        """The reasons of the turn's terminals: exactly one is right (P3)."""
        ends = [message for message in await self.of_turn(turn_id) if message.name == h.AI_RUN_END]
        return [str(header(message, h.RUN_REASON)) for message in ends]

    async def content_after(self, turn_id: str, position: Position) -> list[Entry]:
        """Text of a turn that stands behind a position in the log (P2: none behind its cancel)."""
        refs = {str(entry.position) for entry in await self.log() if _creates_output(entry, turn_id)}
        return [
            entry
            for entry in await self.log()
            if entry.position > position
            and (
                (isinstance(entry, Appended) and entry.data and str(entry.ref.position) in refs)
                or _creates_output(entry, turn_id)
            )
        ]


def numbered(count: int) -> str:
    """The text of `script: tokens=count`."""
    return "".join(f"{number} " for number in range(count))


def header(message: Message, name: str) -> str | None:
    """A transport header."""
    headers = h.read_headers(message)
    return headers.get(name) if headers is not None else None


def run_of(message: Message) -> str | None:
    """The turn a message belongs to."""
    return header(message, h.RUN_ID)


def _label(message: Message) -> str:
    headers = h.read_headers(message)
    if message.name == h.AI_OUTPUT and headers is not None:
        return headers.kind
    return message.name or ""


def _creates_output(entry: Entry, turn_id: str) -> bool:
    return isinstance(entry, Created) and any(
        message.name == h.AI_OUTPUT and run_of(message) == turn_id for message in entry.messages
    )
