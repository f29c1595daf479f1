"""Builds every store of a process from its settings; nothing else builds one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.preflight import check_way_in
from selfhost_transport.redis_io.server_version import check_server
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.settings import Settings
from selfhost_transport.store import scripts
from selfhost_transport.store.annotations import AnnotationStore
from selfhost_transport.store.dead_letters import DeadLetters
from selfhost_transport.store.deployment import agree
from selfhost_transport.store.duties import Duties
from selfhost_transport.store.ended_turns import EndedTurns
from selfhost_transport.store.erasure import SessionErasure
from selfhost_transport.store.fleet import Fleet
from selfhost_transport.store.format import check_format
from selfhost_transport.store.history import HistoryReader
from selfhost_transport.store.keys import DEFAULT_BUCKETS, Keyspace
from selfhost_transport.store.occupancy import OccupancyStore
from selfhost_transport.store.options import SECOND_MS, StoreOptions
from selfhost_transport.store.person_erasure import PersonErasure
from selfhost_transport.store.presence import PresenceStore
from selfhost_transport.store.push import PushStore
from selfhost_transport.store.retention import Retention
from selfhost_transport.store.revocations import RevocationStore
from selfhost_transport.store.session_import import SessionImports
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_inputs import TurnInputs
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_steps import TurnSteps
from selfhost_transport.store.turn_store import TurnStore

CALL_S: Final = 5.0
"""How long a call waits for Redis, by default: to be reached, to take it, to answer."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Everything a process reads and writes in Redis, over one connection."""

    settings: Settings
    redis: RedisConnection
    keys: Keyspace
    options: StoreOptions
    sessions: SessionStore
    history: HistoryReader
    turns: TurnStore
    pauses: TurnPauses
    inputs: TurnInputs
    steps: TurnSteps
    presence: PresenceStore
    annotations: AnnotationStore
    occupancy: OccupancyStore
    fleet: Fleet
    revocations: RevocationStore
    retention: Retention
    dead_letters: DeadLetters
    imports: SessionImports
    duties: Duties
    push: PushStore
    erasure: SessionErasure
    person_erasure: PersonErasure

    @classmethod
    def build(cls, settings: Settings, *, call_s: float = CALL_S, read_s: float | None = None) -> Stores:
        """The stores of the deployment that the settings describe; nothing is asked of Redis yet.

        `read_s`: for how long reads are repeated while Redis is away, where that is longer than `call_s`.
        Raises InvalidArgument for an address that cannot be read.
        """
        redis = RedisConnection(
            settings.redis.url, timeout_s=call_s, read_s=read_s, replicas=settings.redis.replicas
        )
        redis.keep_loaded(scripts.everything())
        keys = Keyspace(settings.redis.prefix, settings.redis.buckets or DEFAULT_BUCKETS)
        options = _options(settings)
        sessions, turns = SessionStore(redis, keys, options), TurnStore(redis, keys, options)
        presence, push = PresenceStore(redis, keys, options), PushStore(redis, keys)
        annotations = AnnotationStore(redis, keys, options)
        erasure = SessionErasure(redis, keys, turns, push)
        return cls(
            settings=settings,
            redis=redis,
            keys=keys,
            options=options,
            sessions=sessions,
            history=sessions.history,
            turns=turns,
            pauses=TurnPauses(redis, keys, options),
            inputs=TurnInputs(redis, keys, options),
            steps=TurnSteps(redis, keys),
            presence=presence,
            annotations=annotations,
            occupancy=OccupancyStore(redis, keys, presence),
            fleet=Fleet(redis, keys),
            revocations=RevocationStore(redis, settings.redis.prefix),
            retention=Retention(redis, keys, options),
            dead_letters=DeadLetters(turns, sessions),
            imports=SessionImports(redis, keys, options),
            duties=Duties(redis, keys),
            push=push,
            erasure=erasure,
            person_erasure=PersonErasure(redis, keys, options, turns, presence, annotations, push, erasure),
        )

    @staticmethod
    def bare_connection(url: str, timeout_s: float) -> RedisConnection:
        """A connection without stores, for what handles keys as they are and knows no namespace. Raises InvalidArgument."""
        return RedisConnection(url, timeout_s=timeout_s)

    @classmethod
    async def open(
        cls,
        settings: Settings,
        *,
        call_s: float = CALL_S,
        read_s: float | None = None,
        note_format: bool = True,
    ) -> Stores:
        """The same, after checks: the address is the right kind of server, its version suffices, its data has our format.

        What the given settings leave open and the deployment has fixed (the number of buckets) is in `settings` of the result.
        `note_format`: whether this process may write the format and what it fixes into Redis, as the first one does. Raises
        StoreUnavailable or StoreUnsuitable within two seconds, InvalidArgument.
        """
        await check_way_in(settings.redis.url)
        redis = RedisConnection(settings.redis.url, timeout_s=call_s, read_s=read_s)
        try:
            check_server(await redis.info())
            await check_format(redis, settings.redis.prefix, note=False)
            agreed = await agree(redis, settings, note=note_format)
            await check_format(redis, settings.redis.prefix, note=note_format)
        finally:
            await redis.close()
        return cls.build(agreed, call_s=call_s, read_s=read_s)

    def ended_turns(self, exporter: str) -> EndedTurns:
        """The queue of an exporter."""
        return EndedTurns(self.redis, self.keys, exporter)

    def subscriber(self, **options: Any) -> Subscriber:
        """Notifications of the same Redis, over a connection of their own; the options are those of `Subscriber`."""
        return Subscriber(self.settings.redis.url, **options)

    async def close(self) -> None:
        """Disconnect."""
        await self.redis.close()


def _options(settings: Settings) -> StoreOptions:
    def retention_of(session: str) -> int:
        return round(settings.namespace_for(session).retention / timedelta(milliseconds=1))

    return StoreOptions(
        window_ms=settings.gateway.resume_window_s * SECOND_MS,
        # A client that resumes sends again what was not acknowledged.
        idempotency_ms=max(StoreOptions().idempotency_ms, settings.gateway.connection_state_ttl_ms),
        presence_lease_ms=settings.gateway.presence_lease_ms,
        max_open_turns=settings.limits.max_open_turns,
        max_waiting=settings.limits.max_waiting,
        max_wait_ms=settings.limits.max_wait_ms,
        burst_wait_ms=settings.limits.burst_wait_ms,
        retention_of=retention_of,
    )
