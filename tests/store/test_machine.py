"""Any order of sends, takes, writes, cancels, ends, hand-backs, suspensions and answers, against a plain model."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.store.turn_machine import Turns


def test_any_history_of_turns(redis_server: EmbeddedRedis) -> None:
    Turns.url = redis_server.url
    limits = settings(
        max_examples=60,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    Turns.TestCase.settings = limits
    Turns.TestCase().runTest()
