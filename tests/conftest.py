"""Fixtures shared by all tests: a real Redis, a prefix of one's own, a stack of real processes."""

from __future__ import annotations

import gc
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
import redis

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.leaks import keys_under, unowned_keys
from tests.logging_state import logging_restored
from tests.longest_first import longest_first
from tests.processes import Stack


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, None, None]:
    """What is imported and collected stays: walking it for garbage, again and again, takes a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes take the files in the order of their time; one takes them as they stand."""
    if hasattr(config, "workerinput"):
        longest_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Halves of characters in what a test printed or logged cannot travel between processes: they are replaced."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "replace").decode("utf-8")) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="module", autouse=True)
def _logging_of_the_module() -> Iterator[None]:
    """What a module's fixtures do to logging ends with the module: a server in this process configures it anew."""
    with logging_restored():
        yield


@pytest.fixture(autouse=True)
def _logging_of_the_test() -> Iterator[None]:
    """What a test does to logging ends with the test."""
    with logging_restored():
        yield


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """One real Redis for the whole run, without persistence. Tests that stop it start their own instead."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """Address of the shared Redis."""
    return redis_server.url


@pytest.fixture
def redis_prefix(redis_url: str) -> Iterator[str]:
    """A prefix that only this test uses.

    Afterwards the test fails if it left a key that is outside the prefix, or has neither TTL nor owner (P9).
    """
    prefix = f"t{uuid.uuid4().hex[:12]}"
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        before = set(keys_under(client, ""))
        yield prefix
        mine = keys_under(client, prefix)
        leaked = unowned_keys(client, prefix)
        foreign = set(keys_under(client, "")) - before - set(mine)
        for start in range(0, len(mine), 1000):
            client.unlink(*mine[start : start + 1000])
        if foreign:
            client.unlink(*foreign)
    assert not leaked, f"keys with neither a TTL nor a declared owner: {leaked}"
    assert not foreign, f"keys outside the prefix: {sorted(foreign)}"


@pytest.fixture
async def stack(redis_url: str, redis_prefix: str, tmp_path: Path) -> AsyncIterator[Stack]:
    """Gateways and workers as real processes on the shared Redis, killed when the test ends."""
    running = Stack(redis_url, redis_prefix, tmp_path)
    yield running
    await running.close()
