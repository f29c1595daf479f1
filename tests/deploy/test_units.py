"""The units of systemd: their commands with their environment and working directory, as real processes."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from tests.deploy.running import DEPLOY, ROOT, Host, answer, reports_its_turns, stops
from tests.processes import Proc, Stack

PROGRAM = "/opt/selfhost-transport/bin/selfhost-transport"
UNITS = ("selfhost-transport-gateway.service", "selfhost-transport-worker@.service")


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


async def _start(
    host: Host, unit: dict[str, list[str]], env: dict[str, str], folder: Path | None, instance: str = "1"
) -> Proc:
    (command,) = unit["ExecStart"]
    program, *words = shlex.split(command.replace("%i", instance))
    if program == "/bin/sh":
        assert words[0] == "-c"
        program, *words = _said_by_shell(words[1].replace("$$", "$"), env)
    assert program == PROGRAM
    return await host.start(words, env, folder)


def _said_by_shell(script: str, env: dict[str, str]) -> list[str]:
    """What a shell makes of the command that it is to be replaced by."""
    assert script.startswith("exec ")
    shown = f"printf '%s\\n' {script.removeprefix('exec ')}"
    ran = subprocess.run(
        ["/bin/sh", "-c", shown], env=env, check=True, stdout=subprocess.PIPE, text=True, timeout=10
    )
    return ran.stdout.splitlines()


def test_each_worker_has_a_port_of_its_own_for_metrics() -> None:
    (command,) = _unit("selfhost-transport-worker@.service")["ExecStart"]
    ports = {}
    for instance in ("1", "9", "10", "12", "120"):
        script = shlex.split(command.replace("%i", instance))[2].replace("$$", "$")
        words = _said_by_shell(script, {"AGENT": ""})
        ports[instance] = words[words.index("--metrics-port") + 1]
        # Without an agent there is no argument in its place.
        assert words[:3] == [PROGRAM, "worker", "--config"]
    assert ports == {"1": "9101", "9": "9109", "10": "9110", "12": "9112", "120": "9220"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_reads_every_line_of_a_unit(name: str, tmp_path: Path) -> None:
    """With programs that are there: it asks for those of a unit."""
    text = (DEPLOY / "systemd" / name).read_text().replace(PROGRAM, "/bin/true")
    unit = tmp_path / name.replace("@", "@12")
    unit.write_text(text)
    ran = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
    )  # fmt: skip
    about = [line for line in ran.stdout.splitlines() if "selfhost-transport" in line]
    assert not about, ran.stdout


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
    await reports_its_turns(running[1])
    for proc, unit in zip(running[::-1], (worker, gateway), strict=True):
        await stops(proc, float(unit["TimeoutStopSec"][0]))


def test_what_the_guide_installs_is_what_the_units_use() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    for name in UNITS:
        unit = _unit(name)
        for path in (*unit["EnvironmentFile"], *unit["WorkingDirectory"]):
            assert path in page, f"{name} needs {path}, and the guide does not say so"
        assert unit["Restart"] == ["always"] and unit["KillMode"] == ["mixed"]
