"""How the code is built, as `scripts/measure_structure.py` sees it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent


def shown(root: Path) -> str:
    """What the script prints."""
    command = [sys.executable, str(ROOT / "scripts" / "measure_structure.py"), str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def measured(root: Path) -> dict[str, list[int | float]]:
    """The figures of each package: files, levels of files and folders, imports, imports per file, files in circles."""
    lines = shown(root).splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if "| `" in line]
    return {name.strip("`"): [float(figure) for figure in figures] for name, *figures in rows}


def test_no_files_import_each_other() -> None:
    assert {package: figures[-1] for package, figures in measured(ROOT).items()} == {
        "selfhost_transport": 0,
        "gateway": 0,
        "agent_worker": 0,
    }


def test_circles_levels_and_imports_are_counted(tmp_path: Path) -> None:
    sources = {
        "selfhost_transport/__init__.py": "",
        "gateway/__init__.py": "",
        "gateway/top.py": "from gateway.room import one\nimport gateway.room.two\n",
        "gateway/room/__init__.py": "",
        "gateway/room/one.py": "def late():\n    from gateway.room import two\n",
        "gateway/room/two.py": "from gateway.room.one import late\nfrom gateway.base import X\n",
        "gateway/base.py": "X = 1\n",
        "agent_worker/__init__.py": "",
    }
    for name, text in sources.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # The top, the circle, the base; the folder of the circle lies between the two files.
    assert measured(tmp_path)["gateway"] == [6, 3, 3, 5, 0.8, 2]


def test_a_large_class_has_a_reason() -> None:
    found = re.findall(r"^  (\S+): (\d+) methods, (\d+) lines", shown(ROOT), re.MULTILINE)
    record = (ROOT / "docs/decisions/large-classes.md").read_text()
    reasons = set(re.findall(r"^\| `(\S+)` \|", record, re.MULTILINE))
    large = {name for name, methods, lines in found if int(methods) > 22 or int(lines) > 300}
    assert len(large) > 10
    assert large - reasons == set()
    assert reasons - {name for name, *_ in found} == set()


# Seen from its two sides, one thing has one name: what the public packages call a turn, and both ends of a connection.
SAME_THING = {"Turn", "Connection"}


def test_two_classes_have_two_names() -> None:
    found = defaultdict(list)
    for package in ("selfhost_transport", "gateway", "agent_worker"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(str(file.relative_to(ROOT)))
    assert len(found) > 800
    twice = {name: files for name, files in found.items() if len(files) > 1}
    assert twice.keys() - SAME_THING == set(), twice
    assert SAME_THING - twice.keys() == set()
