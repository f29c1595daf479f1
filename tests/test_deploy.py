"""The files of deploy/: the configuration loads, Redis accepts its file, the ACL allows enough and no more."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError

from selfhost_transport.redis_io.embedded import EmbeddedRedis, find_server
from selfhost_transport.settings import load_settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
_CALL = re.compile(r"redis\.p?call\(\s*['\"](\w+)['\"]")


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedRedis]:
    """A Redis with the published ACL, except that the administrator of the test stays in."""
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as admin:
        user = next(line for line in _acl() if line.startswith("user transport "))
        _run(admin, "ACL SETUSER", *user.split()[1:])
        yield server


@pytest.fixture
def transport(guarded: EmbeddedRedis) -> Iterator[redis.Redis]:
    """A connection as the user of the product."""
    with redis.Redis.from_url(guarded.url, username="transport", password="CHANGE-ME") as client:
        yield client


def _acl() -> list[str]:
    return (DEPLOY / "redis" / "users.acl").read_text().splitlines()


def _run(client: redis.Redis, *words: str) -> object:
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


def _commands_of_scripts() -> list[str]:
    sources = (ROOT / "selfhost_transport").rglob("*.lua")
    return sorted({name.upper() for source in sources for name in _CALL.findall(source.read_text())})


def test_the_example_configuration_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    example = dict(
        line.split("=", 1)
        for line in (DEPLOY / "env.example").read_text().splitlines()
        if not line.startswith("#")
    )
    monkeypatch.setenv("SELFHOST_TRANSPORT_KEYS", example["SELFHOST_TRANSPORT_KEYS"])
    settings = load_settings(DEPLOY / "config.toml")
    assert [key.name for key in settings.keys] == ["app.web"]
    assert settings.namespace_for("conversations:1").agent == "assistant"


def test_redis_accepts_its_configuration(tmp_path: Path) -> None:
    port = "0"  # a server that listens nowhere but on a socket
    socket = tmp_path / "redis.sock"
    server = subprocess.Popen(
        [
            find_server(),
            str(DEPLOY / "redis" / "redis.conf"),
            *("--port", port, "--unixsocket", str(socket), "--dir", str(tmp_path)),
            *("--aclfile", str(DEPLOY / "redis" / "users.acl")),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        printed = ""
        while "eady to accept connections" not in printed:
            line = server.stdout.readline()
            assert line, f"Redis ended: {printed}"
            printed += line
        with redis.Redis(unix_socket_path=str(socket), username="transport", password="CHANGE-ME") as client:
            assert client.info("persistence")["aof_enabled"] == 1
            assert client.info("memory")["maxmemory_policy"] == "noeviction"
        with redis.Redis(unix_socket_path=str(socket)) as nobody, pytest.raises(redis.AuthenticationError):
            nobody.ping()
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("command", _commands_of_scripts())
def test_aut_10_the_acl_allows_what_the_scripts_call(
    guarded: EmbeddedRedis, transport: redis.Redis, command: str
) -> None:
    with redis.Redis.from_url(guarded.url) as admin:
        arity = abs(admin.command()[command.lower()]["arity"])
    try:
        _run(transport, command, *["sht:{b0}:k"] * (arity - 1))
    except NoPermissionError as refused:
        pytest.fail(f"{command} is refused: {refused}")
    except redis.ResponseError:
        pass  # the arguments make no sense; the permission was there


def test_aut_10_the_acl_allows_scripts_and_notifications(transport: redis.Redis) -> None:
    script = transport.register_script("return redis.call('XADD', KEYS[1], '*', 'a', ARGV[1])")
    assert script(keys=["sht:{b0}:l:s"], args=["x"])
    with transport.pubsub() as listener:  # type: ignore[no-untyped-call]
        listener.subscribe("sht:{b0}:n:s")
        assert listener.get_message(timeout=5) is not None
        assert transport.publish("sht:{b0}:n:s", "x") == 1


@pytest.mark.parametrize(
    "command",
    [
        "GET other:key",
        "SET sh:key 1",
        "XADD other * a b",
        "PUBLISH other x",
        "SUBSCRIBE other",
        "EVAL return(redis.call('GET','other')) 0",
        "EVAL return(redis.call('FLUSHALL')) 0",
        "KEYS *",
        "SCAN 0",
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG GET *",
        "ACL LIST",
        "SHUTDOWN NOSAVE",
        "SCRIPT FLUSH",
        "MONITOR",
        "RANDOMKEY",
    ],
)
def test_p9_the_acl_refuses_everything_else(transport: redis.Redis, command: str) -> None:
    with pytest.raises(redis.ResponseError, match=r"(?i)no permissions|can't (access|run)"):
        _run(transport, *command.split())
