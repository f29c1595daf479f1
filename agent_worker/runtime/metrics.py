"""Metrics of a worker, served for Prometheus on a port of their own (acceptance OPS-1)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent_worker.runtime.worker import Worker, WorkerStatistics
from selfhost_transport.errors import TransportError
from selfhost_transport.metrics import DeploymentTotals
from selfhost_transport.settings import Settings
from selfhost_transport.store.deployment import agree
from selfhost_transport.store.keys import DEFAULT_BUCKETS, Keyspace
from selfhost_transport.store.statistics import Statistics, read_statistics
from selfhost_transport.store.stores import Stores

logger = logging.getLogger(__name__)

READ_TIMEOUT_S = 3.0


class WorkerMetrics(Collector):
    """What a worker does, and the deployment's totals, read when asked. `collect` runs in the server's thread."""

    def __init__(self, worker: Worker, stores: Stores) -> None:
        self._worker = worker
        self._redis = stores.redis
        self._settings = stores.settings
        self._keys: Keyspace | None = None
        self._loop = asyncio.get_running_loop()

    def describe(self) -> Iterator[Metric]:
        """Nothing is read before a scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics at this moment; without the totals while Redis is away."""
        yield from worker_families(self._worker.statistics())
        yield from self._worker.times.registry.collect()
        statistics = self._read()
        if statistics is not None:
            yield from DeploymentTotals(statistics).collect()

    def _read(self) -> Statistics | None:
        reading = asyncio.run_coroutine_threadsafe(self._statistics(), self._loop)
        try:
            return reading.result(READ_TIMEOUT_S)
        except (TransportError, TimeoutError) as error:
            reading.cancel()
            logger.warning("metrics.read_failed error=%r", error)
            return None

    async def _statistics(self) -> Statistics:
        if self._keys is None:
            agreed = await agree(self._redis, self._settings, note=False)
            self._keys = Keyspace(agreed.redis.prefix, agreed.redis.buckets or DEFAULT_BUCKETS)
        return await read_statistics(self._redis, self._keys, self._worker.agents)


def worker_families(now: WorkerStatistics) -> Iterator[Metric]:
    """The metrics of a worker's statistics."""
    yield GaugeMetricFamily("sht_worker_turns_running", "Turns being worked on", value=now.running)
    unwinding = "Aborted agents that have not returned"
    yield GaugeMetricFamily("sht_worker_turns_unwinding", unwinding, value=now.unwinding)
    attempts = CounterMetricFamily("sht_worker_attempts", "Finished attempts, by outcome", labels=["outcome"])
    for outcome, count in now.outcomes.items():
        attempts.add_metric([outcome or "unknown"], count)
    yield attempts
    said = "Tokens that model calls have used, as the providers report them"
    tokens = CounterMetricFamily("sht_worker_model_tokens", said, labels=["agent", "direction"])
    for agent, usage in now.usage.items():
        tokens.add_metric([agent, "input"], usage.input_tokens)
        tokens.add_metric([agent, "output"], usage.output_tokens)
    yield tokens
    blocked = "Seconds in which user code blocked the loop"
    yield CounterMetricFamily("sht_worker_loop_blocked_seconds", blocked, value=now.blocked[1])


@asynccontextmanager
async def metrics_served(worker: Worker, settings: Settings) -> AsyncIterator[None]:
    """Serve `/metrics` for as long as the body runs, if a port is configured. Raises OSError for a port in use."""
    port, host = settings.worker.metrics_port, settings.worker.metrics_host
    if port is None:
        yield
        return
    stores = Stores.build(settings, call_s=READ_TIMEOUT_S)
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(worker, stores))
    server, thread = start_http_server(port, host, registry)
    print(f"metrics http://{host}:{server.server_port}/metrics", flush=True)
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)
        await stores.close()
