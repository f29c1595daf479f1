"""docker-compose.yml as far as it goes without Docker: its commands, environment and files, run as real processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml

from selfhost_transport.redis_io.embedded import find_server
from tests.deploy.running import (
    DEPLOY,
    ROOT,
    Host,
    answer,
    environment_file,
    interpolated,
    reports_its_turns,
    stops,
)
from tests.processes import Stack, wait_until


class _Loader(yaml.SafeLoader):
    """Knows the tag with which one file of Compose replaces a value of another."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("!override", _mapping)


def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((DEPLOY / name).read_text(), _Loader)
    return loaded


COMPOSE = _load("docker-compose.yml")
SERVICES = COMPOSE["services"]
VALUES = environment_file(DEPLOY / "env.example")


def _environment(service: dict[str, Any]) -> dict[str, str]:
    values = {name: interpolated(value, VALUES) for name, value in service.get("environment", {}).items()}
    # The prefix of the configuration, not one of the test's own: the ACL is for that.
    return {"SELFHOST_TRANSPORT_REDIS_PREFIX": "", **values}


def _mounts() -> list[tuple[str, str, str]]:
    """Service, source and target of everything that is mounted."""
    return [
        (name, *volume.split(":")[:2])
        for name, service in SERVICES.items()
        for volume in service.get("volumes", ())
    ]


def test_what_is_mounted_exists() -> None:
    for name, source, target in _mounts():
        assert target.startswith("/"), name
        if source.startswith("."):
            assert (DEPLOY / source).exists(), f"{name} mounts {source}"
        else:
            assert source in COMPOSE["volumes"], f"{name} uses the volume {source}"


def test_each_value_that_is_needed_is_in_the_example() -> None:
    for service in SERVICES.values():
        _environment(service)
    assert not {"change", "password"} & {value.lower() for value in VALUES.values()}


@pytest.fixture
async def host(stack: Stack, tmp_path: Path) -> AsyncIterator[Host]:
    """A Redis started by the command of its service, and the paths of the containers as they are here."""
    server = SERVICES["redis"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = interpolated(server["command"][-1], VALUES)
    for there, here in (
        ("/etc/redis", str(DEPLOY / "redis")),
        ("/tmp/users.acl", f"{tmp_path}/users.acl"),
        ("exec redis-server", f"exec {find_server()}"),
    ):
        assert there in command
        command = command.replace(there, here)
    data = tmp_path / "data"
    data.mkdir()
    running = await stack.run(
        *server["command"][:2], f"{command} --port {port} --dir {data}", env=_environment(server)
    )
    await wait_until(lambda: "eady to accept connections" in running.log, 15)
    moved = {
        "redis:6379": f"127.0.0.1:{port}",
        "/etc/selfhost-transport": str(DEPLOY),
        "0.0.0.0": "127.0.0.1",
    }
    yield Host(stack, moved)


async def test_the_commands_of_the_services_answer_a_turn_and_stop(host: Host) -> None:
    names = {"gateway": "", "worker": "docker-compose.agent.yml"}
    running = {}
    for name, over in names.items():
        service = SERVICES[name] | (_load(over)["services"][name] if over else {})
        folder = DEPLOY / service["build"]["context"] if over else None
        running[name] = await host.start(service["command"], _environment(service), folder)
    key = json.loads(VALUES["SELFHOST_TRANSPORT_KEYS"])[0]
    shown = await answer(running["gateway"].url, (key["name"], key["secret"]), "one two three")
    assert "That question has 3 words." in shown
    await _figures_need_the_key_of_prometheus(running["gateway"].url)
    await reports_its_turns(running["worker"])
    for name in ("worker", "gateway"):
        await stops(running[name], float(SERVICES[name]["stop_grace_period"].removesuffix("s")))


async def _figures_need_the_key_of_prometheus(url: str) -> None:
    (gateway, worker) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())[
        "scrape_configs"
    ]
    assert gateway["basic_auth"]["password_file"] in SERVICES["prometheus"]["command"][0]
    assert gateway["dns_sd_configs"][0] == {"names": ["gateway"], "type": "A", "port": 8080}
    ports = SERVICES["worker"]["command"]
    assert worker["dns_sd_configs"][0]["port"] == int(ports[ports.index("--metrics-port") + 1])
    elsewhere = {"X-Forwarded-For": "203.0.113.9"}
    async with httpx.AsyncClient(base_url=url, headers=elsewhere) as http:
        assert (await http.get("/metrics")).status_code == 401
        auth = (gateway["basic_auth"]["username"], VALUES["METRICS_SECRET"])
        figures = await http.get("/metrics", auth=auth)
        assert figures.status_code == 200 and "sht_turns_total" in figures.text
        refused = await http.post(
            "/v1/sessions/conversations:2/turns", json={"text": "x", "clientId": "eve"}, auth=auth
        )
        assert refused.status_code in (401, 403), "that key reads figures and nothing else"


async def test_redis_takes_the_passwords_of_the_example_only(host: Host) -> None:
    for user, name in (("transport", "REDIS_PASSWORD"), ("operator", "REDIS_OPERATOR_PASSWORD")):
        with redis.Redis.from_url(f"redis://{user}:{VALUES[name]}@{host.here('redis:6379')}/0") as client:
            assert client.ping()
    with (
        redis.Redis.from_url(f"redis://transport:CHANGE-ME@{host.here('redis:6379')}/0") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and source["isDefault"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "files.yml").read_text())["providers"]
    mounted = {target: where for name, where, target in _mounts() if name == "grafana"}
    dashboards = list((DEPLOY / mounted[provider["options"]["path"]]).glob("*.json"))
    assert dashboards and all(json.loads(path.read_text())["panels"] for path in dashboards)


def _copied(dockerfile: Path) -> list[str]:
    """What a Dockerfile takes from its context."""
    lines = [line.split() for line in dockerfile.read_text().splitlines()]
    return [word for line in lines if line[:1] == ["COPY"] and "--from" not in line[1] for word in line[1:-1]]


def test_the_image_has_all_that_it_installs(tmp_path: Path) -> None:
    """A wheel from what the Dockerfile copies, as its `pip install .` makes one, has all that runs."""
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    context = tmp_path / "context"
    context.mkdir()
    for name in _copied(DEPLOY / "Dockerfile"):
        assert f"!{name}" in allowed, f"Dockerfile.dockerignore keeps {name} out"
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, context / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
            )
        else:
            shutil.copy(source, context / name)
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    made = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=context, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / made.stdout.split()[-1]) as wheel:
        wheel.extractall(tmp_path / "installed")
        packed = set(wheel.namelist())
    for package in ("selfhost_transport", "gateway", "agent_worker"):
        for path in (ROOT / package).rglob("*"):
            name = str(path.relative_to(ROOT))
            if path.suffix in {".py", ".lua", ".js", ".css", ".html"} and "web/" not in name:
                assert name in packed, f"{name} is not in the image"
    code = "import gateway.server, agent_worker; print(gateway.server.__file__)"
    shown = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith(str(tmp_path / "installed"))


def test_the_example_of_an_image_with_own_agents_is_whole() -> None:
    folder = DEPLOY / "agent"
    text = (folder / "Dockerfile").read_text()
    assert all((folder / name).exists() for name in _copied(folder / "Dockerfile"))
    (command,) = [line.removeprefix("CMD ") for line in text.splitlines() if line.startswith("CMD")]
    module, _, name = json.loads(command)[1].partition(":")
    assert f"{name} = Worker()" in (folder / f"{module}.py").read_text()
    assert f"FROM {SERVICES['gateway']['image']}\n" in text
