"""What the rows of the acceptance table are played on: gateways, workers and Redis as real processes."""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfhost_transport import ClientTransport, StreamReset, Turn
from selfhost_transport.client import RunInfo
from selfhost_transport.client.transport import Connecting
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.store.deployment import BUCKETS_OF_CLUSTER
from selfhost_transport.store.entries import Appended, Created, Entry, Replaced
from selfhost_transport.store.keys import DEFAULT_BUCKETS, Keyspace
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.chunks import TextDelta
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, parse_position
from tests.processes import Proc, Stack, wait_until
from tests.worker.session import Room, header, numbered, run_of

FULL = os.environ.get(f"{ENV_PREFIX}TEST_SCALE") == "full"
KEY = "test.key:secret-of-the-tests"
CONFIG = """
[[keys]]
name = "test.key"
secret = "secret-of-the-tests"

[[keys]]
name = "test.reader"
secret = "reader"
capability = { "*" = ["subscribe", "history"] }

[[namespaces]]
id = "*"
agent = "assistant"

[[namespaces]]
id = "queue"
agent = "assistant"
policy = "queue"

[[namespaces]]
id = "barge"
agent = "assistant"
policy = "interrupt"

[[namespaces]]
id = "pair"
agent = "assistant"
max_active = 2

[[namespaces]]
id = "crew"
agent = "agent-1"

[[namespaces]]
id = "plain"
"""
CREW = "tests.e2e.crew:worker"
# Longer than any of these tests takes when all is well; a loaded machine is slow.
PATIENCE_S = 40.0


def scaled(full: int, quick: int) -> int:
    """How often to repeat an experiment: `full` as the acceptance table says, with TEST_SCALE=full."""
    return full if FULL else quick


def script(tokens: int, rate: float, **directives: object) -> str:
    """`M(n, r)`: a text that makes the scripted model stream `0 1 2 …`."""
    more = "".join(f" {name}={value}" for name, value in directives.items())
    return f"script: tokens={tokens} rate={rate:g}{more}"


def tokens_of(text: str) -> int:
    """How many numbered tokens a text is; it must be a prefix of `0 1 2 …`."""
    count = len(text.split())
    assert text == numbered(count), f"not a prefix of the numbered tokens: {text[:200]!r}"
    return count


def is_exact(turn: Turn, tokens: int) -> bool:
    """`exact(T)`: no gap, duplicate or reorder."""
    return turn.text == numbered(tokens)


def assert_exact(turn: Turn, tokens: int) -> None:
    """Fail with the place where a turn's text is wrong."""
    text, expected = turn.text, numbered(tokens)
    if text != expected:
        at = next((n for n, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b), len(text))
        raise AssertionError(
            f"{turn}: {len(text.split())} tokens instead of {tokens}; after {at} characters it has {text[at : at + 60]!r}"
        )


async def streamed(turn: Turn) -> str:
    """The text of a turn as a reader of its stream receives it."""
    chunks: list[str] = []
    async for part in turn.stream:
        if isinstance(part, StreamReset):
            chunks.clear()
        elif isinstance(part, TextDelta):
            chunks.append(part.delta)
    return "".join(chunks)


async def token_seen(turn: Turn, count: int = 1) -> None:
    """Wait until so many tokens of a turn have arrived."""
    await wait_until(lambda: len(turn.text.split()) >= count, PATIENCE_S, f"{count} tokens of {turn}")


async def each(work: Sequence[Awaitable[object]]) -> None:
    """Do all at once."""
    async with asyncio.TaskGroup() as group:
        for item in work:
            group.create_task(_awaited(item))


async def _awaited(item: Awaitable[object]) -> None:
    await item


class Log:
    """`log(S)`: the raw session log with positions."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries

    def created(self, name: str | None = None) -> list[tuple[Position, Message]]:
        """Every message that was created, with the position of its publish."""
        return [
            (entry.position, message)
            for entry in self.entries
            if isinstance(entry, Created)
            for message in entry.messages
            if name is None or message.name == name
        ]

    def of_turn(self, turn_id: str) -> list[tuple[Position, Message]]:
        """The messages that carry a turn's id."""
        return [(position, message) for position, message in self.created() if run_of(message) == turn_id]

    def ends(self, turn_id: str) -> list[str]:
        """`end(T)`: the terminals."""
        ends = [message for _, message in self.of_turn(turn_id) if message.name == h.AI_RUN_END]
        return [str(header(message, h.RUN_REASON)) for message in ends]

    def terminals(self, turn_id: str) -> list[Position]:
        """Where the terminals stand."""
        return [position for position, message in self.of_turn(turn_id) if message.name == h.AI_RUN_END]

    def tokens(self, turn_id: str) -> list[Position]:
        """Where chunks of text of a turn stand."""
        outputs = [(p, m) for p, m in self.of_turn(turn_id) if m.name == h.AI_OUTPUT and _is_stream(m)]
        opened = {str(position) for position, _ in outputs}
        found = [position for position, message in outputs if message.data]
        return found + [
            entry.position
            for entry in self.entries
            if isinstance(entry, Appended) and entry.data and str(entry.ref.position) in opened
        ]

    def content(self, turn_id: str) -> list[Position]:
        """Where text of a turn stands: output messages, and chunks appended to them that are not empty."""
        outputs = {
            str(position) for position, message in self.of_turn(turn_id) if message.name == h.AI_OUTPUT
        }
        found = [position for position, message in self.of_turn(turn_id) if message.name == h.AI_OUTPUT]
        found += [
            entry.position
            for entry in self.entries
            if isinstance(entry, Appended) and entry.data and str(entry.ref.position) in outputs
        ]
        found += [
            entry.position
            for entry in self.entries
            if isinstance(entry, Replaced) and str(entry.ref.position) in outputs
        ]
        return sorted(found)


@dataclass(slots=True)
class Stage:
    """One deployment. Sessions are made on first use; every test takes names of its own."""

    stack: Stack
    store: RedisConnection
    gateways: list[Proc] = field(default_factory=list)
    workers: list[Proc] = field(default_factory=list)
    config: str = CONFIG
    env: dict[str, str] = field(default_factory=dict)
    _names: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    async def make(
        cls,
        redis_url: str,
        prefix: str,
        folder: Path,
        *,
        gateways: int = 2,
        workers: int = 1,
        config: str = CONFIG,
        env: dict[str, str] | None = None,
    ) -> Stage:
        """A running deployment."""
        stage = cls(
            Stack(redis_url, prefix, folder), RedisConnection(redis_url), config=config, env=env or {}
        )
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(gateways):
                    group.create_task(stage.add_gateway())
                for _ in range(workers):
                    group.create_task(stage.add_worker())
        except BaseException:
            await stage.close()
            raise
        return stage

    async def close(self) -> None:
        """End all processes."""
        await self.stack.close()
        await self.store.close()

    async def add_gateway(self, port: int = 0) -> Proc:
        """One more gateway."""
        gateway = await self.stack.gateway(port=port, config=self.config, env=self.env)
        self.gateways.append(gateway)
        return gateway

    async def add_worker(self, *args: str) -> Proc:
        """One more worker."""
        worker = await self.stack.worker(*args, config=self.config, env=self.env)
        self.workers.append(worker)
        return worker

    def session(self, namespace: str = "chat") -> str:
        """A session that no one has used."""
        return f"{namespace}:{uuid.uuid4().hex[:8]}-{next(self._names)}"

    def connect(
        self, session: str, client_id: str | None = "user-1", *, gateway: int = 0, **options: Any
    ) -> Connecting:
        """A client; `gateway` is the one it tries first, the others are its fallbacks."""
        urls = [gateway.url for gateway in self.gateways]
        ordered = [*urls[gateway:], *urls[:gateway]]
        arguments: dict[str, Any] = {"key": KEY, "within": 15.0, **options}
        if "token" in arguments or "auth_callback" in arguments:
            del arguments["key"]
        return ClientTransport.connect(
            ordered[0], endpoints=ordered[1:], channel=session, client_id=client_id, **arguments
        )

    def room(self, session: str) -> Room:
        """The session as the store has it."""
        return Room(self.store, self.keys, session)

    @property
    def keys(self) -> Keyspace:
        """The names of a new deployment's keys."""
        on_cluster = self.stack.redis_url.startswith("redis+cluster:")
        return Keyspace(self.stack.redis_prefix, BUCKETS_OF_CLUSTER if on_cluster else DEFAULT_BUCKETS)

    async def log(self, session: str) -> Log:
        """The raw log of a session."""
        return Log(await self.room(session).log())

    async def text_in_history(self, session: str, turn_id: str) -> str:
        """A turn's text as the history has it."""
        return await self.room(session).text(turn_id)

    async def logged_end(self, session: str, turn_id: str, timeout: float = PATIENCE_S) -> list[str]:
        """The terminals of a turn, once there is one."""

        async def look() -> list[str]:
            return (await self.log(session)).ends(turn_id)

        return await wait_until(look, timeout, f"a terminal of {turn_id}")


def _is_stream(message: Message) -> bool:
    return header(message, h.STREAM) == "true"


def position_of(serial: str) -> Position:
    """The position in a channelSerial or an item serial."""
    return parse_position(serial)[0]


def turn_id(turn: Turn) -> str:
    """The id of a turn that has one."""
    assert turn.turn_id is not None
    return turn.turn_id


def statuses(turns: Sequence[RunInfo]) -> dict[str, TurnStatus]:
    """Status by turn id."""
    return {turn.run_id: turn.status for turn in turns}
