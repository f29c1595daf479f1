"""Running `node --test` suites from pytest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.processes import Stack

FOLDER = Path(__file__).parent.parent / "js"

TIMEOUT_S = 200.0


async def run_suite(stack: Stack, name: str, env: Mapping[str, str], folder: Path = FOLDER) -> None:
    """Run one suite and fail with its report unless every case in it passes."""
    assert _has_packages(folder), f"the npm packages of {folder} are missing: run `scripts/setup --test`"
    proc = await stack.run(
        "node", "--test", "--test-force-exit", "--test-reporter=spec", str(folder / name), env=env
    )
    try:
        status = await proc.wait(TIMEOUT_S)
    except TimeoutError:
        raise AssertionError(f"{name} took longer than {TIMEOUT_S:.0f} s:\n{proc.log}") from None
    assert status == 0, f"{name} failed:\n{proc.log}"


def _has_packages(folder: Path) -> bool:
    return any((place / "node_modules").is_dir() for place in (folder, folder.parent))
