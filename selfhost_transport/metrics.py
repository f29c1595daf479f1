"""Prometheus metrics that gateways and workers share: the deployment's totals, and processes that add up."""

from __future__ import annotations

import os
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from selfhost_transport.store.statistics import Statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client: where processes of one service keep their values together."""


class DeploymentTotals(Collector):
    """Metrics that every process reports alike, since they come from Redis: take the maximum, not the sum."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """The metrics of one reading."""
        turns = CounterMetricFamily("sht_turns", "Turns that have ended, by outcome", labels=["outcome"])
        for outcome in ("completed", "cancelled", "failed"):
            turns.add_metric([outcome], self._statistics.turns.get(outcome, 0))
        yield turns
        losses = "Expired leases: workers that died or could not renew"
        yield CounterMetricFamily("sht_lease_losses", losses, value=self._statistics.lease_losses)
        depth = GaugeMetricFamily("sht_queue_depth", "Turns waiting for a worker", labels=["agent"])
        age = GaugeMetricFamily(
            "sht_queue_oldest_seconds", "Age of the oldest waiting turn", labels=["agent"]
        )
        for agent, queue in self._statistics.queues.items():
            depth.add_metric([agent], queue.depth)
            age.add_metric([agent], queue.oldest_s)
        yield depth
        yield age


def render(own: CollectorRegistry, statistics: Statistics | None) -> bytes:
    """The text form: of this process, or of all that share a folder; and the deployment's totals if they are known."""
    if os.environ.get(SHARED_FOLDER):
        own = CollectorRegistry()
        MultiProcessCollector(own)  # type: ignore[no-untyped-call]
    text = generate_latest(own)
    if statistics is not None:
        totals = CollectorRegistry()
        totals.register(DeploymentTotals(statistics))
        text += generate_latest(totals)
    return text
