"""The examples in Python pass type checkers as a reader's own code would: mypy and pyright."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.documentation.blocks import ROOT, Block, all_blocks

# What examples take from the application, or from an example above them.
GIVEN = {
    "docs/tracing.md": "from typing import Any\nclient: Any = None\nmessages: Any = None\n",
    "docs/webhooks.md": "from typing import Any\nbody: Any = None\nheaders: Any = None\n",
    "docs/hydration.md": "from typing import Any\ndatabase: Any = None\n",
}
PYRIGHT = ROOT / "tests" / "js" / "node_modules" / ".bin" / "pyright"


def module_of(page: str, examples: list[Block]) -> str:
    """Examples of a page as one module; those that await at the top level stand in a function."""
    parts = [GIVEN.get(page, "")]
    for example in examples:
        try:
            compile(example.text, page, "exec")
            parts.append(example.text)
        except SyntaxError:
            parts.append(_function(len(parts), [example]))
    return "\n".join(parts)


def _function(number: int, examples: list[Block]) -> str:
    body = "\n".join(example.text for example in examples)
    return f"async def example_{number}() -> None:\n{textwrap.indent(body, '    ')}"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module for each example, or for those of a page that follow each other."""
    folder = tmp_path_factory.mktemp("typed")
    by_page: dict[str, list[Block]] = {}
    for example in all_blocks():
        if example.language == "python":
            by_page.setdefault(example.page, []).append(example)
    for page, found in by_page.items():
        name = Path(page).stem.replace("-", "_").lower()
        if page == "docs/python-sdk.md":
            (folder / f"page_{name}.py").write_text(_function(0, found))
        elif page == "docs/agents.md":
            (folder / f"page_{name}.py").write_text(module_of(page, found))
        else:
            # Examples of other pages stand on their own, but for what their page has imported above.
            for number, example in enumerate(found):
                above = (
                    found[:number]
                    if "worker = Worker()" not in example.text and "import" not in example.text
                    else []
                )
                (folder / f"page_{name}_{number}.py").write_text(module_of(page, [*above, example]))
    return folder


def test_mypy_accepts_the_examples(examples: Path) -> None:
    ran = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--config-file=", "--check-untyped-defs", "--no-error-summary",
            "--follow-imports=silent", f"--cache-dir={ROOT / '.mypy_cache' / 'examples'}", str(examples),
        ],
        capture_output=True, text=True, env={**os.environ, "MYPYPATH": str(ROOT)}, cwd=examples,
    )  # fmt: skip
    assert (ran.stdout, ran.returncode) == ("", 0), ran.stdout + ran.stderr


def test_pyright_accepts_the_examples(examples: Path) -> None:
    settings = {
        "include": ["."],
        "extraPaths": [str(ROOT)],
        "pythonPlatform": "Linux",
        "pythonVersion": "3.11",
    }
    (examples / "pyrightconfig.json").write_text(json.dumps(settings))
    ran = subprocess.run(
        [str(PYRIGHT), "--pythonpath", sys.executable, "--project", str(examples)],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
