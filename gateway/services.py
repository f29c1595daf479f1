"""What every part of the gateway shares, made once per process."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from gateway.auth.authenticator import Authenticator, Credential
from gateway.auth.callers import Identify
from gateway.auth.rate_limits import Limits
from gateway.auth.revocations import Revocations
from gateway.commands.burst import Burst
from gateway.commands.cancel_voting import CancelVoting
from gateway.commands.continuations import Continuations
from gateway.commands.executor import Executor
from gateway.commands.turn_commands import TurnRules
from gateway.connection_terms import Terms
from gateway.fanout.hub import SessionHub
from gateway.fanout.occupancy import OccupancyTracker
from gateway.fanout.presence_lease import PresenceLease
from gateway.metrics import Metrics
from selfhost_transport.loop_lag import LastingLag, LoopLag
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.settings import Settings
from selfhost_transport.store.annotations import AnnotationStore
from selfhost_transport.store.deployment import note_again
from selfhost_transport.store.fleet import Fleet
from selfhost_transport.store.format import check_format
from selfhost_transport.store.keys import bucket_of
from selfhost_transport.store.options import SECOND_MS
from selfhost_transport.store.presence import Holder, PresenceStore
from selfhost_transport.store.retention import Retention
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.stores import Stores
from selfhost_transport.store.turn_inputs import TurnInputs
from selfhost_transport.store.turn_store import TurnStore
from selfhost_transport.turns.withholding import Hidden, hidden_from
from selfhost_transport.wire.identity import Identity

CALL_S = 3.0
"""How long a call of a client's request waits for Redis: clients of HTTP wait five seconds themselves, as a rule."""
_SECRET_BYTES = 32
# Renewed by every gateway that starts: a deployment that is gone leaves nothing behind (P9).
_SECRET_TTL_MS = 365 * 86_400 * SECOND_MS


class Endable(Protocol):
    """A background task that runs until it is stopped."""

    def end(self) -> None: ...  # noqa: D102


class Host(Protocol):
    """What holds the services while the gateway runs."""

    def running(self) -> Services:
        """The services. Raises StoreUnavailable outside the lifespan."""
        ...


@dataclass(slots=True)
class Services:
    """The gateway's parts. `secret` signs connection keys, on every gateway of the deployment alike."""

    settings: Settings
    stores: Stores
    redis: RedisConnection
    sessions: SessionStore
    turns: TurnStore
    inputs: TurnInputs
    fleet: Fleet
    presence: PresenceStore
    annotations: AnnotationStore
    presence_lease: PresenceLease
    board: OccupancyTracker
    retention: Retention
    hub: SessionHub
    executor: Executor
    authenticator: Authenticator
    revocations: Revocations
    limits: Limits
    lag: LoopLag
    metrics: Metrics
    secret: bytes
    server_id: str
    # Event streams that are being read, and whose they are; None for a short read, which is no one's stream.
    streams: dict[Endable, tuple[str, Identity] | None] = field(default_factory=dict)
    _streams_of: Counter[tuple[str, Identity]] = field(default_factory=Counter)

    def rules_for(self, session: str) -> TurnRules | None:
        """The turn rules of a session; None where it is plain pub/sub."""
        return TurnRules.of(self.settings.namespace_for(session), self.settings.worker.max_attempts)

    def hidden_from(self, credential: Credential, session: str) -> Hidden:
        """What a caller does not get of a session."""
        return hidden_from(credential.capability, session, self.settings.namespace_for(session).withhold)

    def terms(self, max_idle_ms: int | None = None) -> Terms:
        """The contents of CONNECTED."""
        gateway = self.settings.gateway
        return Terms(
            max_message_size=gateway.max_message_size,
            max_frame_size=gateway.max_frame_size,
            connection_state_ttl=gateway.connection_state_ttl_ms,
            max_idle_interval=gateway.max_idle_ms if max_idle_ms is None else max_idle_ms,
            server_id=self.server_id,
        )

    def holder(self, connection_id: str, remain_ms: int) -> Holder:
        """A new socket of a connection, as the holder of its presence members."""
        return Holder(connection_id, secrets.token_hex(8), self.server_id, remain_ms)

    async def restore_secret(self) -> bool:
        """Put the deployment's secret back if it is gone, as all else is then; whether it was. Raises StoreUnavailable."""
        key = secret_key(self.settings.redis.prefix)
        if await self.redis.command("EXISTS", key):
            return False
        await check_format(self.redis, self.settings.redis.prefix)
        await note_again(self.redis, self.settings)
        # Without it, connections could not be resumed at gateways that start from now on.
        await self.redis.command("SET", key, self.secret, "NX", "PX", _SECRET_TTL_MS)
        return True

    async def admit_stream(
        self, credential: Credential, session: str, stream: Endable, *, counts: bool = True
    ) -> None:
        """Let an event stream be read until it is released; one that `counts` is one of its client's.

        Raises RateLimited: 42920 for one too many of a client, 42910 for too many new sessions.
        """
        if self.hub.feed(session) is None:
            await self.limits.admit_session(credential, lambda: self.sessions.exists(session))
        if not counts:
            self.streams[stream] = None
            return
        self.require_stream(credential)
        who = self.streams[stream] = credential.app_id, credential.identity
        self._streams_of[who] += 1

    def require_stream(self, credential: Credential) -> None:
        """Raises RateLimited 42920 for a client that reads as many event streams as it may."""
        self.limits.admit_stream(credential, self._streams_of[credential.app_id, credential.identity])

    def release_stream(self, stream: Endable) -> None:
        """An event stream has ended; once is enough."""
        who = self.streams.pop(stream, None)
        if who is not None:
            self._streams_of[who] -= 1
            if not self._streams_of[who]:
                del self._streams_of[who]

    def end_streams(self) -> None:
        """Let the readers of event streams go."""
        for stream in list(self.streams):
            stream.end()

    async def close(self) -> None:
        """Stop watching and disconnect from Redis."""
        self.lag.stop()
        await self.revocations.close()
        await self.board.close()
        await self.hub.close()
        await self.redis.close()


async def connect_services(settings: Settings, identify: Identify | None = None) -> Services:
    """Connect to Redis and build everything. Raises what `Stores.open` does."""
    stores = await Stores.open(settings, call_s=CALL_S)
    settings, sessions = stores.settings, stores.sessions
    server_id = f"gw-{secrets.token_hex(4)}"
    metrics = Metrics()
    hub = SessionHub(sessions, settings.redis.url, metrics)
    revocations = Revocations(stores.revocations, settings.redis.url)
    try:
        secret = await _shared_secret(stores.redis, settings.redis.prefix)
        await revocations.start()
    except BaseException:
        await revocations.close()
        await stores.close()
        raise
    burst = Burst()
    lag, limits = _overload(stores, hub, metrics, burst)
    return Services(
        settings=settings,
        stores=stores,
        redis=stores.redis,
        sessions=sessions,
        turns=stores.turns,
        presence=stores.presence,
        annotations=stores.annotations,
        presence_lease=PresenceLease(
            stores.presence, server_id, stores.options.presence_lease_ms / SECOND_MS
        ),
        board=OccupancyTracker(
            stores.occupancy,
            server_id,
            settings.redis.url,
            names_readers=settings.push.private_key is not None,
        ),
        retention=stores.retention,
        inputs=stores.inputs,
        fleet=stores.fleet,
        hub=hub,
        executor=_executor(stores, hub, metrics, burst),
        authenticator=Authenticator(settings, identify, revocations),
        revocations=revocations,
        limits=limits,
        lag=lag,
        metrics=metrics,
        secret=secret,
        server_id=server_id,
    )


def _executor(stores: Stores, hub: SessionHub, metrics: Metrics, burst: Burst) -> Executor:
    sessions, turns = stores.sessions, stores.turns
    continuations, voting = Continuations(sessions, turns, stores.inputs), CancelVoting(hub, sessions)
    return Executor(
        sessions, turns, stores.presence, stores.annotations, continuations, voting, metrics, burst
    )


def _overload(stores: Stores, hub: SessionHub, metrics: Metrics, burst: Burst) -> tuple[LoopLag, Limits]:
    """What notices that there is more to do than can be done in time, and the limits that count then."""
    limits, buckets, lag = stores.settings.limits, stores.keys.buckets, LoopLag()
    late = LastingLag(limits.max_lag_ms / SECOND_MS, lambda: max(lag.seconds, hub.inbox.behind_s))
    lag.looked = late.look
    lag.start()
    return lag, Limits(
        limits,
        lag=lambda: late.lasting_s,
        shed=metrics.shed,
        closed_s=lambda agent, session: burst.closed_s((agent, bucket_of(session, buckets))),
    )


def secret_key(prefix: str) -> str:
    """Where the deployment's secret is kept."""
    return f"{prefix}:secret"


async def _shared_secret(redis: RedisConnection, prefix: str) -> bytes:
    """The deployment's secret, made by the first process that needs it."""
    key = secret_key(prefix)
    await redis.command("SET", key, secrets.token_bytes(_SECRET_BYTES), "NX", "PX", _SECRET_TTL_MS)
    secret: bytes = await redis.command("GETEX", key, "PX", _SECRET_TTL_MS)
    return secret
