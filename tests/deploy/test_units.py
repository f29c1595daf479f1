"""The units of systemd: their commands with their environment and working directory, as real processes."""

from __future__ import annotations

import shlex
import shutil
from collections import defaultdict
from pathlib import Path

from tests.deploy.running import DEPLOY, ROOT, Host, answer, stops
from tests.processes import Proc, Stack


def _unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit; each may stand several times."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (DEPLOY / "systemd" / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def _secrets() -> dict[str, str]:
    """`secrets.env` as the guide shows it."""
    page = (ROOT / "docs" / "deployment.md").read_text()
    block = next(block for block in page.split("```") if "\nSELFHOST_TRANSPORT_REDIS=" in block)
    pairs = (line.partition("=") for line in block.splitlines() if "=" in line)
    return {name: shlex.split(value)[0] if value else "" for name, _, value in pairs}


async def _start(host: Host, unit: dict[str, list[str]], env: dict[str, str], folder: Path | None) -> Proc:
    (command,) = unit["ExecStart"]
    program, *words = command.replace("%i", "1").replace("$AGENT", env.get("AGENT", "")).split()
    assert program == "/opt/selfhost-transport/bin/selfhost-transport"
    return await host.start(words, env, folder)


async def test_the_commands_of_the_units_answer_a_turn_and_stop(
    stack: Stack, redis_url: str, tmp_path: Path
) -> None:
    gateway, worker = _unit("selfhost-transport-gateway.service"), _unit("selfhost-transport-worker@.service")
    secrets = _secrets() | {"AGENT": "my_agents:worker"}
    moved = {secrets["SELFHOST_TRANSPORT_REDIS"]: redis_url, "/etc/selfhost-transport": str(DEPLOY)}
    host = Host(stack, moved)
    # The folder that the unit names, in which the module of AGENT is found.
    assert worker["WorkingDirectory"] == ["/srv/selfhost-transport"]
    shutil.copy(DEPLOY / "agent" / "my_agents.py", tmp_path)
    running = [await _start(host, gateway, secrets, None), await _start(host, worker, secrets, tmp_path)]
    shown = await answer(running[0].url, ("app.web", "SECRET"), "one two")
    assert "That question has 2 words." in shown
    for proc, unit in zip(running[::-1], (worker, gateway), strict=True):
        await stops(proc, float(unit["TimeoutStopSec"][0]))


def test_what_the_guide_installs_is_what_the_units_use() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    for name in ("selfhost-transport-gateway.service", "selfhost-transport-worker@.service"):
        unit = _unit(name)
        for path in (*unit["EnvironmentFile"], *unit["WorkingDirectory"]):
            assert path in page, f"{name} needs {path}, and the guide does not say so"
        assert unit["Restart"] == ["always"] and unit["KillMode"] == ["mixed"]
