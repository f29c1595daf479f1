"""Counters and gauges of one gateway process, in a registry of their own."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from selfhost_transport.metrics import render
from selfhost_transport.store.statistics import Statistics

_MEASURED_EVERY = 16
_CANCEL_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_LAG_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Metrics:
    """What the gateway counts. `render` gives the Prometheus text form."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        gauge = partial(Gauge, registry=self.registry, multiprocess_mode="livesum")
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.connections = gauge("sht_gateway_connections", "Open websocket connections")
        self.sessions = gauge("sht_gateway_sessions", "Sessions subscribed")
        self.deliveries = counter("sht_gateway_deliveries", "Entries delivered to attachments")
        self.fills = counter("sht_gateway_log_fills", "Times a session was compared with its log")
        self.frames = counter("sht_gateway_frames_received", "Frames received")
        self.turns = counter("sht_gateway_sends", "Sends accepted, by status", ["status"])
        self.refused = counter(
            "sht_gateway_sends_refused", "Sends refused with an advice to retry, by reason", ["reason"]
        )
        self.cancelled = counter("sht_gateway_turns_cancelled", "Turns ended by cancels through this gateway")
        self.cancel_seconds = histogram(
            "sht_gateway_cancel_seconds", "Time the store took for a cancel", buckets=_CANCEL_BUCKETS
        )
        self.fanout_lag = histogram(
            "sht_gateway_fanout_lag_seconds",
            "From an entry's position (the clock of Redis) to its fan-out; every sixteenth is measured",
            buckets=_LAG_BUCKETS,
        )
        self.jumps = counter(
            "sht_gateway_conflated_sessions",
            "Times a session's notifications exceeded the fan-out limit and its log was read instead",
        )
        self.pushes = counter(
            "sht_gateway_pushes",
            "Pushes dealt with: delivered, not needed (attached), without a browser (gone), retried, given up",
            ["outcome"],
        )
        self.slow_readers = counter(
            "sht_gateway_slow_readers", "Connections dropped because their client read too slowly"
        )
        # Entries until the next one that is measured.
        self._until_measured = 0
        # Not in its counter yet: that takes a lock, and a shared file where processes count together.
        self._delivered = 0

    def delivered(self, count: int) -> None:
        """Entries were written to that many attachments. They show once they were brought in."""
        self._delivered += count

    def collect(self) -> None:
        """Add what was counted on the side; to be called about once a second."""
        delivered, self._delivered = self._delivered, 0
        self.deliveries.inc(delivered)

    def fanned_out(self, written_ms: int, count: int = 1) -> None:
        """So many entries, the last of which was written at this time, ms since the epoch, are delivered."""
        self._until_measured -= count
        if self._until_measured < 0:
            self._until_measured = max(0, self._until_measured + _MEASURED_EVERY)
            self.fanout_lag.observe(max(0.0, time.time() - written_ms / 1000))

    def jumped(self) -> None:
        """A session is read from its log, conflated."""
        self.jumps.inc()

    def gap(self) -> None:
        """A session is compared with its log."""
        self.fills.inc()

    def sent(self, status: str, *, repeated: bool) -> None:
        """A send was accepted."""
        self.turns.labels("repeated" if repeated else status).inc()

    def shed(self, reason: str) -> None:
        """A send was refused because there is more to do than can be done in time."""
        self.refused.labels(reason).inc()

    def ended_by_cancel(self, turns: int, seconds: float) -> None:
        """A cancel was carried out."""
        self.cancelled.inc(turns)
        self.cancel_seconds.observe(seconds)

    def render(self, statistics: Statistics | None) -> bytes:
        """The text form that Prometheus scrapes; of all processes that share the port."""
        self.collect()
        return render(self.registry, statistics)
