"""`doctor`: what it accepts, what it refuses, and why (OPS-8, RUL-3)."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from selfhost_transport import accelerator
from selfhost_transport.commands.doctor import Verdict, examine_accelerator, examine_server
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.commands.conftest import Call

GOOD = {
    "redis_version": "7.0.15",
    "maxmemory_policy": "noeviction",
    "maxmemory": "0",
    "aof_enabled": "1",
    "role": "master",
    "connected_slaves": "1",
    # Stated where min-replicas-to-write is set.
    "min_slaves_good_slaves": "1",
}


def test_a_good_server_has_nothing_to_complain_about() -> None:
    assert {finding.verdict for finding in examine_server(GOOD)} == {Verdict.OK}


@pytest.mark.parametrize(
    ("info", "subject", "advice"),
    [
        ({"redis_version": "6.0.16"}, "version", "too old"),
        ({"maxmemory_policy": "allkeys-lru"}, "memory", "set it to noeviction"),
        ({"aof_enabled": "0"}, "persistence", "set appendonly to yes"),
        ({"role": "slave", "master_host": "10.0.0.1", "master_port": "6379"}, "role", "10.0.0.1:6379"),
    ],
)
def test_ops_8_each_danger_is_named_with_its_cure(info: dict[str, str], subject: str, advice: str) -> None:
    (bad,) = [finding for finding in examine_server({**GOOD, **info}) if finding.verdict is Verdict.FAIL]
    assert bad.subject == subject and advice in bad.detail


def test_replicas_that_no_write_waits_for_are_warned_of() -> None:
    alone = {**GOOD, "connected_slaves": "0"}
    without = {name: value for name, value in GOOD.items() if name != "min_slaves_good_slaves"}
    del alone["min_slaves_good_slaves"]
    assert {finding.verdict for finding in examine_server(alone)} == {Verdict.OK}
    (warned,) = [finding for finding in examine_server(without) if finding.verdict is not Verdict.OK]
    assert warned.verdict is Verdict.WARN and "min-replicas-to-write to 1" in warned.detail


def test_a_server_with_a_data_folder_is_healthy(call: Call, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "data") as server:
        result = call("doctor", "--redis", server.url)
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            unsafe = call("doctor", "--redis", server.url)
            left = client.keys("*")
    assert result.exit_code == 0 and "fail" not in result.output
    assert unsafe.exit_code == 1 and "maxmemory-policy allkeys-lru" in unsafe.output
    assert left == []


def test_ops_8_a_server_without_append_only_file_fails(call: Call) -> None:
    result = call("doctor")
    assert result.exit_code == 1 and "no append-only file" in result.output


def test_a_server_that_cannot_be_reached_fails(call: Call) -> None:
    result = call("doctor", "--redis", "redis://user:geheim@127.0.0.1:1/0")
    assert result.exit_code == 1 and "fail  connection" in result.output and "geheim" not in result.output


def test_aut_10_missing_rights_are_named(call: Call, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "data") as server:
        with redis.Redis.from_url(server.url) as client:
            client.acl_setuser(
                "poor", enabled=True, passwords=["+pw"], keys=["other:*"], categories=["+@all"]
            )
        result = call("doctor", "--redis", server.url.replace("://", "://poor:pw@"))
    assert result.exit_code == 1 and "fail  rights" in result.output


def test_rul_3_the_rule_of_a_channel(call: Call, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[[namespaces]]\nid = "conversations"\nagent = "helper"\npolicy = "queue"\nmax_active = 2\n'
    )
    bound = call("doctor", "conversations:x", "--config", str(config)).output
    assert "conversations:x: rule conversations: agent helper, policy queue, max_active=2" in bound
    assert (
        "conversation:x: rule *: plain pub/sub"
        in call("doctor", "conversation:x", "--config", str(config)).output
    )


def test_what_dev_binds_and_accepts_is_known(call: Call) -> None:
    alone, as_dev = call("doctor", "chat:x").output, call("doctor", "chat:x", "--dev").output
    assert "chat:x: no client can connect" in alone and "--dev" in alone
    assert "chat:x: rule *: agent assistant" in as_dev and "chat:x: key dev.local: everything" in as_dev


def test_it_names_the_form_of_the_hot_path() -> None:
    found = examine_accelerator()
    assert (found.verdict, found.subject, found.detail) == (Verdict.OK, "accelerator", accelerator.STATUS)
