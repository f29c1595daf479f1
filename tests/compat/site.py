"""The deployment that SDKs are played against: two gateways and a worker of the scripted model on one Redis."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.machine import find_browser
from tests.processes import Proc, Stack

ROOT = Path(__file__).parents[2]
JS = ROOT / "tests" / "js"
KEY_NAME = "app.key"
REVOCABLE = "app.revocable"
LIMITED = "app.limited"
KEY_SECRET = "a-secret-of-the-tests-long-enough-for-hs256"
CONFIG = f"""
[[keys]]
name = "{KEY_NAME}"
secret = "{KEY_SECRET}"
capability = {{ "*" = ["*"] }}

[[keys]]
name = "{REVOCABLE}"
secret = "{KEY_SECRET}"
revocable_tokens = true

[[keys]]
name = "{LIMITED}"
secret = "{KEY_SECRET}"
capability = {{ "two" = ["publish", "subscribe"], "all" = ["*"], "ns:*" = ["publish"] }}

[[namespaces]]
id = "*"
agent = "assistant"

[[namespaces]]
id = "plain"
"""
FORMATS = ("json", "msgpack")
_SDK_PYTHON = Path(__file__).parent / ".venv" / "bin" / "python"
SDK_PYTHON = Path(os.environ.get("ABLY_PYTHON", _SDK_PYTHON))
SUITE_TIMEOUT_S = 200.0
BUILD_TIMEOUT_S = 300.0
_GO, _JAVA = Path(__file__).parent / "go_sdk", Path(__file__).parent / "java_sdk"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case. `reason`: why the feature is not supported, and `ok` that it is refused properly."""

    feature: str
    ok: bool
    error: str = ""
    reason: str = ""


class Site:
    """Running gateways."""

    def __init__(self, stack: Stack, gateways: list[Proc]) -> None:
        self.stack = stack
        self.gateways = gateways

    def environment(self, wire_format: str) -> dict[str, str]:
        """Where the suites of all SDKs connect, and how."""
        return {
            "KEY": f"{KEY_NAME}:{KEY_SECRET}",
            "REVOCABLE_KEY": f"{REVOCABLE}:{KEY_SECRET}",
            "LIMITED_KEY": f"{LIMITED}:{KEY_SECRET}",
            "PORTS": ",".join(str(gateway.port) for gateway in self.gateways),
            "FORMAT": wire_format,
            "CHROMIUM": find_browser(),
        }


@asynccontextmanager
async def open_site(redis_url: str, folder: Path) -> AsyncIterator[Site]:
    """Start everything under a prefix of its own; end it afterwards."""
    async with Stack.opened(redis_url, folder) as stack:
        gateways = [await stack.gateway(config=CONFIG) for _ in range(2)]
        await stack.worker(config=CONFIG)
        yield Site(stack, gateways)


async def play_python(site: Site, wire_format: str) -> list[Outcome]:
    """Play the cases of the PyPI SDK. Raises AssertionError if the suite itself cannot run."""
    assert SDK_PYTHON.exists(), f"the PyPI SDK is missing: run scripts/setup --test ({SDK_PYTHON})"
    env = {**site.environment(wire_format), "PYTHONPATH": str(ROOT)}
    proc = await site.stack.run(str(SDK_PYTHON), "-m", "tests.compat.python_sdk", env=env)
    status = await proc.wait(SUITE_TIMEOUT_S)
    assert status == 0, f"the suite of the PyPI SDK broke:\n{proc.log}"
    return outcomes_of(proc)


async def play_program(site: Site, wire_format: str, language: str) -> list[Outcome]:
    """Play the cases of the SDK of a compiled language. Raises AssertionError if they cannot be built or run."""
    proc = await site.stack.run(*await PROGRAMS[language](site), env=site.environment(wire_format))
    status = await proc.wait(SUITE_TIMEOUT_S)
    assert status == 0, f"the suite of the {language} SDK broke:\n{proc.log}"
    return outcomes_of(proc)


def missing_tool(language: str) -> str | None:
    """What has to be installed for the SDK of a language."""
    return next((tool for tool in TOOLS[language] if shutil.which(tool) is None), None)


async def _build_go(site: Site) -> tuple[str, ...]:
    program = _GO / ".build" / "compat"
    if _is_older(program, _GO / "main.go", _GO / "go.mod"):
        await _build(site, "go", "build", "-C", str(_GO), "-o", str(program), ".")
    return (str(program),)


async def _build_java(site: Site) -> tuple[str, ...]:
    built = _JAVA / ".build"
    classpath = f"{built / 'lib'}/*:{built}"
    if _is_older(built / "Main.class", _JAVA / "Main.java", _JAVA / "pom.xml"):
        copied = f"-DoutputDirectory={built / 'lib'}"
        await _build(site, "mvn", "-q", "-B", "-f", str(_JAVA), "dependency:copy-dependencies", copied)
        await _build(site, "javac", "-cp", classpath, "-d", str(built), str(_JAVA / "Main.java"))
    return ("java", "-cp", classpath, "Main")


async def _build(site: Site, *command: str) -> None:
    proc = await site.stack.run(*command)
    assert await proc.wait(BUILD_TIMEOUT_S) == 0, proc.log


def _is_older(built: Path, *sources: Path) -> bool:
    return not built.exists() or any(path.stat().st_mtime > built.stat().st_mtime for path in sources)


PROGRAMS = {"go": _build_go, "java": _build_java}
TOOLS = {"go": ("go",), "java": ("java", "javac", "mvn")}


async def play_npm(site: Site, wire_format: str, suite: str) -> list[Outcome]:
    """Play one suite of the npm SDKs. Raises AssertionError if it cannot run."""
    assert (JS / "node_modules").is_dir(), "the npm packages are missing: run scripts/setup --test"
    reporter = f"--test-reporter={JS / 'compat-reporter.mjs'}"
    proc = await site.stack.run(
        "node",
        "--test",
        "--test-force-exit",
        reporter,
        str(JS / f"{suite}.test.mjs"),
        env=site.environment(wire_format),
    )
    status = await proc.wait(SUITE_TIMEOUT_S)
    outcomes = outcomes_of(proc)
    assert outcomes and (status == 0) == all(outcome.ok for outcome in outcomes), proc.log
    return outcomes


def outcomes_of(proc: Proc) -> list[Outcome]:
    """The outcomes that a suite printed, one JSON object per line after the word `case`."""
    lines = [line.removeprefix("case ") for line in proc.lines if line.startswith("case ")]
    return [Outcome(**json.loads(line)) for line in lines]
