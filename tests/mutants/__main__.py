"""`python -m tests.mutants [--only TEXT] [--seconds 40]`: puts each fault into a copy and reports those that no one sees."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.mutations import CHAOS, MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
_COPIED = (
    "selfhost_transport",
    "gateway",
    "agent_worker",
    "tests",
    "scripts",
    "docs",
    "deploy",
    "pyproject.toml",
)
_LEFT_OUT = shutil.ignore_patterns("node_modules", ".venv", "__pycache__", ".mypy_cache")
_PATIENCE_S = 400.0


def main() -> int:
    """Exit status 1 when a fault survives."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", default="", help="faults whose name contains this")
    options.add_argument("--seconds", type=float, default=40.0, help="how long the chaos driver looks")
    given = options.parse_args()
    survivors = []
    for mutation in MUTATIONS:
        if given.only not in mutation.name:
            continue
        began = time.monotonic()
        seen = is_seen(mutation, given.seconds)
        print(
            f"{'seen' if seen else 'SURVIVES'}  {mutation.name}  ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
        if not seen:
            survivors.append(mutation.name)
    print(f"{len(survivors)} of {len(MUTATIONS)} faults survive: {survivors}")
    return int(bool(survivors))


def is_seen(mutation: Mutation, seconds: float) -> bool:
    """Whether what has to notice a fault does."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=_LEFT_OUT)
            else:
                shutil.copy(source, copy / name)
        put_in(mutation, copy)
        if mutation.seen_by == CHAOS:
            command = ["-m", "tests.chaos", "--seconds", str(seconds), "--sessions", "3"]
        else:
            command = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutation.seen_by]
        return _fails(command, copy)


def put_in(mutation: Mutation, tree: Path) -> None:
    """Make the change. Raises ValueError where the place is not found exactly once."""
    path = tree / mutation.file
    text = path.read_text()
    if text.count(mutation.before) != 1:
        raise ValueError(
            f"{mutation.file} has the place of {mutation.name!r} {text.count(mutation.before)} times"
        )
    path.write_text(text.replace(mutation.before, mutation.after))


def _fails(command: list[str], tree: Path) -> bool:
    env = {**os.environ, "PYTHONPATH": str(tree)}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=tree, env=env, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return process.wait(_PATIENCE_S) != 0
    except subprocess.TimeoutExpired:
        # What does not come to an end has been noticed, too.
        return True
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
