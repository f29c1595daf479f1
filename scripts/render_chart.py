"""Renders the Helm chart with the values of its `ci` folder, for tests on machines that have no `helm`.

Run it with `helm` on the PATH after each change of the chart: it lints, and writes tests/deploy/rendered.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm" / "selfhost-transport"
RENDERED = ROOT / "tests" / "deploy" / "rendered"
KUBERNETES = "1.32.0"


def digest() -> str:
    """Of all files of the chart: what is rendered carries it, so that a stale file shows."""
    found = hashlib.sha256()
    for path in sorted(path for path in CHART.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(CHART)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def head() -> str:
    """The first line of what is rendered."""
    return f"# Written by scripts/render_chart.py from the chart {digest()}\n"


def variants() -> dict[str, Path]:
    """Names and files of values."""
    return {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*.yaml"))}


def render(values: Path) -> str:
    """What `helm template` makes of a file of values. Raises CalledProcessError."""
    for command in (["lint", "--strict"], ["template", "trial", "--kube-version", KUBERNETES]):
        ran = subprocess.run(
            ["helm", *command, str(CHART), "--values", str(values)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return ran.stdout


if __name__ == "__main__":
    for name, file in variants().items():
        (RENDERED / f"{name}.yaml").write_text(head() + render(file))
