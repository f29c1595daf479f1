"""Counters and gauges of one gateway process, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """What the gateway counts. `render` gives the Prometheus text form."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.connections = Gauge(
            "sht_gateway_connections", "Open websocket connections", registry=self.registry
        )
        self.sessions = Gauge("sht_gateway_sessions", "Sessions subscribed", registry=self.registry)
        self.deliveries = Counter(
            "sht_gateway_deliveries", "Entries written to attachments", registry=self.registry
        )
        self.fills = Counter(
            "sht_gateway_log_fills", "Times a session was compared with its log", registry=self.registry
        )
        self.frames = Counter("sht_gateway_frames_received", "Frames received", registry=self.registry)
        self.turns = Counter(
            "sht_gateway_sends", "Sends accepted, by status", ["status"], registry=self.registry
        )
        self.cancelled = Counter(
            "sht_gateway_turns_cancelled",
            "Turns ended by cancels through this gateway",
            registry=self.registry,
        )
        self.cancel_seconds = Histogram(
            "sht_gateway_cancel_seconds",
            "Time the store took for a cancel",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
            registry=self.registry,
        )
        self.slow_readers = Counter(
            "sht_gateway_slow_readers",
            "Connections dropped because they did not read",
            registry=self.registry,
        )

    def delivered(self, count: int) -> None:
        """Entries were written to that many attachments."""
        self.deliveries.inc(count)

    def gap(self) -> None:
        """A session is compared with its log."""
        self.fills.inc()

    def sent(self, status: str, *, repeated: bool) -> None:
        """A send was accepted."""
        self.turns.labels("repeated" if repeated else status).inc()

    def ended_by_cancel(self, turns: int, seconds: float) -> None:
        """A cancel was carried out."""
        self.cancelled.inc(turns)
        self.cancel_seconds.observe(seconds)

    def render(self) -> bytes:
        """The text form that Prometheus scrapes."""
        return generate_latest(self.registry)
