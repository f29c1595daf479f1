"""Limits of the operator's own on publishing, counted in this process (acceptance OPS-5, protocol section 13)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.auth.authenticator import Credential
from selfhost_transport.errors import Overloaded, RateLimited
from selfhost_transport.settings import LimitSettings
from selfhost_transport.wire.codes import Code

_SHORTEST_RETRY_MS: Final = 500
_NEW_SESSIONS_BURST_S: Final = 5.0
"""An application opens its sessions together, so this many seconds' worth may come at once."""
_KEPT: Final = 50_000
"""Buckets that are remembered; the ones used longest ago are forgotten first, and begin full again."""


class Rate:
    """Token buckets by name. A bucket holds `burst_s` seconds' worth, so that short bursts pass. `clock` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # What was left in a bucket, and when that was.
        self._buckets: OrderedDict[tuple[str, ...], tuple[float, float]] = OrderedDict()

    def wait_s(self, name: tuple[str, ...], per_second: float, burst_s: float = 1.0) -> float:
        """Take one; 0 if there was one, else the time until there is."""
        now, burst = self._clock(), max(1.0, per_second * burst_s)
        left, then = self._buckets.pop(name, (burst, now))
        left = min(burst, left + (now - then) * per_second)
        short = left < 1.0
        self._buckets[name] = (left if short else left - 1.0, now)
        if len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)
        return (1.0 - left) / per_second if short else 0.0


class Limits:
    """What `[limits]` and tokens say. A refused publish counts for the limits that were checked before."""

    def __init__(
        self,
        settings: LimitSettings,
        clock: Callable[[], float] = time.monotonic,
        lag: Callable[[], float] = lambda: 0.0,
        shed: Callable[[str], None] = lambda reason: None,
        closed_s: Callable[[str, str], float] = lambda agent, session: 0.0,
    ) -> None:
        self._settings = settings
        # How late this process is, and has been for a while, in seconds.
        self._lag = lag
        # For how long the queue of an agent takes nothing more of a session.
        self._closed_s = closed_s
        # Called for a refused turn, with the reason.
        self._shed = shed
        self._rate = Rate(clock)

    def admit_turn(self, agent: str = "", session: str = "") -> None:
        """Before anything is done for a send that starts a turn.

        Raises Overloaded while this process is late, or the agent's queue was found too long just now (P13).
        """
        closed_s = self._closed_s(agent, session)
        if closed_s > 0:
            self._shed("queue_too_long")
            raise Overloaded(
                "more turns wait for a worker than can start in time; nothing was stored, send again later",
                detail={
                    "reason": "queue_too_long",
                    "retryAfterMs": max(_SHORTEST_RETRY_MS, round(closed_s * 1000)),
                },
            )
        lag_ms, most = self._lag() * 1000, self._settings.max_lag_ms
        if most and lag_ms > most:
            self._shed("gateway_late")
            raise Overloaded(
                "this gateway is overloaded; nothing was stored, send again later",
                detail={"reason": "gateway_late", "retryAfterMs": max(_SHORTEST_RETRY_MS, round(lag_ms))},
            )

    async def admit_session(self, credential: Credential, exists: Callable[[], Awaitable[bool]]) -> None:
        """Before a session is attached that is not watched here. Raises RateLimited for too many that do not exist yet."""
        per_second = self._settings.new_sessions_per_s
        name = ("attach", credential.app_id, credential.identity.client_id or "")
        wait_s = self._rate.wait_s(name, per_second, _NEW_SESSIONS_BURST_S) if per_second else 0.0
        if wait_s > 0 and not await exists():
            raise RateLimited(
                f"more than {per_second} new sessions a second are attached; try again later",
                detail={
                    "limit": "new sessions",
                    "perSecond": per_second,
                    "retryAfterMs": round(wait_s * 1000) + 1,
                },
            )

    def admit_stream(self, credential: Credential, open_streams: int) -> None:
        """Check the limit of event streams of a client. Raises RateLimited 42920."""
        limit, client_id = self._settings.connections_per_client, credential.identity.client_id
        if limit and client_id is not None and open_streams >= limit:
            raise RateLimited(
                f"client {client_id[:64]!r} reads {limit} event streams already; close one",
                code=Code.CONNECTION_RATE_FATAL,
            )

    def admit(self, credential: Credential, connection_id: str | None, session: str) -> None:
        """Count one publish. Raises RateLimited: 42911 connection, 42913 session, 42910 client or application."""
        limits, app = self._settings, credential.app_id
        client_id = credential.identity.client_id
        if connection_id is not None:
            self._take("connection", (connection_id,), limits.connection_publishes_per_s)
            self._take_attachment(credential, connection_id, session)
        if client_id is not None:
            self._take("client", (app, client_id), limits.client_publishes_per_s)
        self._take("session", (session,), limits.session_publishes_per_s)
        self._take("application", (app,), limits.application_publishes_per_s)

    def _take_attachment(self, credential: Credential, connection_id: str, session: str) -> None:
        """The limit that a token sets for itself (section 10.4)."""
        claims = credential.claims
        rate = claims.publish_rate(session) if claims is not None and claims.publish_rates else None
        if rate is not None and rate > 0:
            self._take("attachment", (connection_id, session), rate)

    def _take(self, kind: str, name: tuple[str, ...], per_second: float) -> None:
        if not per_second:
            return
        wait_s = self._rate.wait_s((kind, *name), per_second)
        if wait_s > 0:
            raise RateLimited(
                f"the {kind} publishes more than {per_second:g} times a second; nothing was stored",
                code=_CODES[kind],
                detail={"limit": kind, "perSecond": per_second, "retryAfterMs": round(wait_s * 1000) + 1},
            )


_CODES: Final = {
    "connection": Code.CONNECTION_PUBLISH_RATE,
    "attachment": Code.CHANNEL_PUBLISH_RATE,
    "session": Code.CHANNEL_PUBLISH_RATE,
    "client": Code.RATE_LIMITED,
    "application": Code.RATE_LIMITED,
}
