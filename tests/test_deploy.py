"""The files of deploy/: the configuration loads, Redis accepts its file, the ACL allows enough and no more."""

from __future__ import annotations

import ast
import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
import yaml
from redis.exceptions import NoPermissionError

from selfhost_transport.redis_io.embedded import EmbeddedRedis, find_server
from selfhost_transport.settings import load_settings
from tests.processes import Stack, wait_until
from tests.push_service import Browser
from tests.store.everything import mentions

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
ACL_CONFIG = """
[[keys]]
name = "app.key"
secret = "secret"

[[namespaces]]
id = "chat"
agent = "assistant"

[push]
private_key = "rqgWthgpLm550zkAuYdFNyVMiaz6yAGmOPh9NuH4Pks"
subject = "mailto:ops@example.com"
services = ["http://127.0.0.1:1"]
max_attempts = 1
wait_ms = 0
"""
_CALL = re.compile(r"redis\.p?call\(\s*['\"](\w+)['\"]")


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedRedis]:
    """A Redis with the published ACL, except that the administrator of the test stays in."""
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as admin:
        for user in _users():
            _run(admin, "ACL SETUSER", *user)
        yield server


@pytest.fixture
def transport(guarded: EmbeddedRedis) -> Iterator[redis.Redis]:
    """A connection as the user of the product."""
    with redis.Redis.from_url(guarded.url, username="transport", password="CHANGE-ME") as client:
        yield client


def _acl() -> list[str]:
    return (DEPLOY / "redis" / "users.acl").read_text().splitlines()


def _users() -> list[list[str]]:
    """Name and rules of each user that may do anything."""
    return [line.split()[1:] for line in _acl() if line.startswith("user ") and " on " in line]


def _allowed(name: str) -> set[str]:
    """The single commands of a user."""
    (rules,) = (user[1:] for user in _users() if user[0] == name)
    return {rule[1:].partition("|")[0].upper() for rule in rules if rule[0] == "+" and rule[1] != "@"}


def _run(client: redis.Redis, *words: str) -> object:
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


def _commands_of_scripts() -> list[str]:
    sources = (ROOT / "selfhost_transport").rglob("*.lua")
    return sorted({name.upper() for source in sources for name in _CALL.findall(source.read_text())})


def _commands_of_python(known: set[str]) -> set[str]:
    """Commands that Python sends: first in a call of `command`, or in a tuple that becomes one."""
    found: set[str] = set()
    for package in ("selfhost_transport", "gateway", "agent_worker"):
        for source in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(source.read_text())):
                parts: list[ast.expr] = []
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    parts = node.args if node.func.attr == "command" else []
                elif isinstance(node, ast.Tuple):
                    parts = node.elts
                first = parts[0] if parts else None
                if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.isupper():
                    found.add(first.value)
    return found & known


def test_the_acl_allows_what_the_product_uses_and_no_other_command(guarded: EmbeddedRedis) -> None:
    with redis.Redis.from_url(guarded.url) as admin:
        known = {name.upper() for name in admin.command()}
    used = {*_commands_of_scripts(), *_commands_of_python(known)}
    # A connection's own, which the pipeline and the Cluster client write themselves.
    used |= {"EVALSHA", "SCRIPT", "CLUSTER", "ASKING", "SELECT", "PING", "ROLE"}
    # Always allowed; by category, for the sake of the sharded ones of Redis 7; of tests and of operators.
    used -= {"AUTH", "SUBSCRIBE", "UNSUBSCRIBE", "PUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE", "SPUBLISH"}
    # Of operators: lists and the emergency stop, and `migrate`.
    operators = {"SCAN", "DUMP", "RESTORE"}
    for user, needed in (("transport", used - operators), ("operator", used | operators)):
        allowed = _allowed(user)
        missing, idle = sorted(needed - allowed), sorted(allowed - needed)
        assert not missing, f"deploy/redis/users.acl: allow {user} what the product uses by now: {missing}"
        assert not idle, f"deploy/redis/users.acl: {user} need not be allowed {idle}"


def test_the_example_configuration_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    example = dict(
        line.split("=", 1)
        for line in (DEPLOY / "env.example").read_text().splitlines()
        if not line.startswith("#")
    )
    monkeypatch.setenv("SELFHOST_TRANSPORT_KEYS", example["SELFHOST_TRANSPORT_KEYS"])
    settings = load_settings(DEPLOY / "config.toml")
    assert [key.name for key in settings.keys] == ["app.web", "app.prometheus"]
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
        with redis.Redis(unix_socket_path=str(socket)) as absent, pytest.raises(redis.AuthenticationError):
            absent.ping()
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
        "FUNCTION FLUSH",
        "FUNCTION LOAD x",
        "RENAME sht:a other:b",
        "COPY sht:a sht:b",
        "SORT sht:a",
        "MIGRATE h 1 sht:a 0 1",
        "PUBSUB CHANNELS",
        "PSUBSCRIBE *",
        "CLIENT LIST",
        "DEBUG SLEEP 0",
        "MULTI",
        "EVAL return(1) 0",
        "CLUSTER RESET",
        "MONITOR",
        "RANDOMKEY",
    ],
)
def test_p9_the_acl_refuses_everything_else(transport: redis.Redis, command: str) -> None:
    with pytest.raises(
        redis.ResponseError,
        match=r"(?i)no permissions|can't (access|run)|unknown command `FUNCTION|^DEBUG command not allowed",
    ):
        _run(transport, *command.split())


OPERATORS = (
    ("doctor",),
    ("cancel", "SESSION", "--turn", "no-such-turn"),
    ("cancel", "--all", "--prefix", "chat"),
    ("dead", "list"),
    ("inspect", "SESSION"),
    ("inspect",),
    ("workers", "list"),
    ("push", "dead"),
    ("push", "requeue", "--all"),
)


async def test_the_product_runs_under_the_acl(guarded: EmbeddedRedis, tmp_path: Path) -> None:
    """Each process and command with the rights of its user; a turn runs, another one is cancelled."""
    host = guarded.url.removeprefix("redis://").partition("/")[0]
    stack = Stack(f"redis://transport:CHANGE-ME@{host}/0", "sht", tmp_path)
    try:
        gateway = await stack.gateway(config=ACL_CONFIG)
        worker = await stack.worker(config=ACL_CONFIG)
        async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "secret")) as http:
            path = "/v1/sessions/chat:acl"
            browser = {**Browser("http://127.0.0.1:1", "b").subscription, "clientId": "ann"}
            assert (await http.put("/v1/push/subscriptions", json=browser)).status_code == 200
            for text in ("script: tokens=3 rate=0", "script: tokens=1000 rate=20"):
                sent = await http.post(f"{path}/turns", json={"text": text, "clientId": "ann"})
                assert sent.status_code == 202, sent.text
            await _ended(http, f"{path}/turns/{sent.json()['turnId']}", "active")
            for command in OPERATORS:
                words = [word.replace("SESSION", "chat:acl") for word in command]
                shown = await stack.run(
                    "selfhost-transport", *words, "--redis", f"redis://operator:CHANGE-ME-TOO@{host}/0",
                )  # fmt: skip
                status = await shown.wait()
                assert "NOPERM" not in shown.log and "permission" not in shown.log.lower(), shown.log
                assert status == 0 or words[0] == "doctor", shown.log
            await _ended(http, f"{path}/turns/{sent.json()['turnId']}", "cancelled")
            assert (await http.get(f"{path}/messages")).status_code == 200
            assert (await http.get("/metrics")).status_code == 200

            async def given_up() -> bool:
                return bool((await http.get("/v1/operator/push/dead")).json())

            await wait_until(given_up, 10)
            assert (await http.get("/v1/operator/sessions")).status_code == 200
            # The user of gateways may not walk through all keys: what only that finds expires by itself.
            erased = await http.post("/v1/operator/sessions/chat:acl/erase", json={"dryRun": False})
            assert (erased.status_code, erased.json()["receiptsExpire"]) == (200, True), erased.text
            with redis.Redis.from_url(guarded.url) as admin:
                left = mentions(admin, "sht", "chat:acl")
                assert all(0 < admin.pttl(key) <= 86_400_000 for key in left), left
                assert {key.partition("}:")[2].partition(":")[0] for key in left} <= {"i", "c"}
        for process in (gateway, worker):
            assert "NOPERM" not in process.log, process.log
    finally:
        await stack.close()


async def _ended(http: httpx.AsyncClient, path: str, status: str) -> None:
    async with asyncio.timeout(10):
        while (await http.get(path)).json()["status"] != status:
            await asyncio.sleep(0.02)


SHIELDS = {
    "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "ProtectSystem": "strict", "ProtectHome": "yes",
    "PrivateTmp": "yes", "PrivateDevices": "yes", "ProtectKernelTunables": "yes", "RestrictNamespaces": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX", "SystemCallArchitectures": "native", "UMask": "0077",
}  # fmt: skip
MOST_EXPOSED = 2.0
"""Of 10, as `systemd-analyze security` counts: what is left is mostly that the service uses the network."""


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_the_services_are_confined(unit: Path) -> None:
    set_to = dict(line.partition("=")[::2] for line in unit.read_text().splitlines() if "=" in line)
    assert {name: set_to.get(name) for name in SHIELDS} == SHIELDS
    assert "SystemCallFilter=@system-service" in unit.read_text()
    if (analyze := shutil.which("systemd-analyze")) is not None:
        reported = subprocess.run(
            [analyze, "security", "--offline=true", "--no-pager", str(unit)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        found = re.search(r"exposure level for .*: ([\d.]+)", reported)
        # Older versions cannot look at a file.
        assert found is None or float(found[1]) <= MOST_EXPOSED, reported


def test_the_containers_are_confined() -> None:
    compose = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"] and service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"] and service["pids_limit"] <= 512, name
        assert "noexec,nosuid,nodev" in service["tmpfs"][0], name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"
        # Arguments of a process can be listed by others on the machine.
        assert "--pass" not in str(service.get("command")), name
    assert compose["services"]["redis"]["user"] == "redis"
    assert "USER transport" in (DEPLOY / "Dockerfile").read_text()
