"""How long turns wait, take to their first output, and take altogether: histograms by agent."""

from __future__ import annotations

import time
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, Histogram

from selfhost_transport.store.turn_records import Lease

Exemplar: TypeAlias = dict[str, str] | None
"""The trace that a value comes from."""

_WAITS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LENGTHS: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class TurnTimes:
    """The histograms of one worker. Waits compare the clock of Redis with this machine's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.wait = Histogram(
            "sht_worker_queue_wait_seconds",
            "From the send of a turn to the start of its first attempt",
            ["agent"],
            buckets=_WAITS,
            registry=self.registry,
        )
        self.first_output = Histogram(
            "sht_worker_first_output_seconds",
            "From the start of an attempt to its first output",
            ["agent"],
            buckets=_WAITS,
            registry=self.registry,
        )
        self.length = Histogram(
            "sht_worker_attempt_seconds",
            "From the start of an attempt to its end",
            ["agent", "outcome"],
            buckets=_LENGTHS,
            registry=self.registry,
        )

    def taken(self, agent: str, lease: Lease, exemplar: Exemplar = None) -> None:
        """An attempt begins. Later ones have not waited since the send."""
        if lease.fence == 1:
            self.wait.labels(agent).observe(max(0.0, time.time() - lease.input_position.ms / 1000), exemplar)

    def written(self, agent: str, seconds: float, exemplar: Exemplar = None) -> None:
        """The first output of an attempt is written."""
        self.first_output.labels(agent).observe(seconds, exemplar)

    def ended(self, agent: str, outcome: str, seconds: float, exemplar: Exemplar = None) -> None:
        """An attempt has ended."""
        self.length.labels(agent, outcome or "unknown").observe(seconds, exemplar)
