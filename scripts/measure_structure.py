"""Prints how the code is built, as tables: imports within each package, large classes and files, long and complex functions.

    python scripts/measure_structure.py [FOLDER]

Reads Python files only, runs nothing of them; FOLDER is the root of a checkout, by default this one. Complexity is that of
`ruff check --select C901`.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

PACKAGES = ("selfhost_transport", "gateway", "agent_worker")
METHODS, CLASS_LINES, FILE_LINES, FUNCTION_LINES, COMPLEXITY = 20, 300, 400, 40, 10

Imports = Mapping[str, frozenset[str]]


def modules(root: Path, packages: Sequence[str] = PACKAGES) -> dict[str, Path]:
    """Every module of the packages, by its dotted name."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            if ".venv" in path.parts or "node_modules" in path.parts:
                continue
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(found: Mapping[str, Path]) -> Imports:
    """Which modules each module imports, also inside of functions and for types only."""
    return {name: frozenset(_imported(path, found)) - {name} for name, path in found.items()}


def _imported(path: Path, found: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in found)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module in found:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in found else node.module


def circles(graph: Imports) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""
    reach = {name: _reached(name, graph) for name in graph}
    groups = {tuple(sorted(o for o in reach[n] if n in reach[o])) for n in graph if n in reach[n]}
    return sorted(list(group) for group in groups)


def _reached(start: str, graph: Imports) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def levels(graph: Imports) -> int:
    """The length of the longest chain of imports; a circle counts as one level."""
    group = {name: min(members) for members in circles(graph) for name in members}

    @cache
    def depth(name: str) -> int:
        members = [other for other in graph if group.get(other, other) == name]
        below = {group.get(o, o) for member in members for o in graph[member]} - {name}
        return 1 + max((depth(other) for other in below), default=0)

    return max((depth(group.get(name, name)) for name in graph), default=0)


def rooms(graph: Imports) -> Imports:
    """The same for the folders and files directly in a package."""
    found: dict[str, set[str]] = {}
    for name, imported in graph.items():
        found.setdefault(_room(name), set()).update(map(_room, imported))
    return {name: frozenset(imported) - {name} for name, imported in found.items()}


def _room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def classes(found: Mapping[str, Path]) -> Iterator[tuple[str, int, int]]:
    """Name, methods and lines of each class that has many."""
    for name, path in found.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                methods = sum(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) for one in node.body)
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if methods > METHODS or lines > CLASS_LINES:
                    yield f"{name}.{node.name}", methods, lines


def long_functions(found: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    """Name and lines of each function that has many."""
    for name, path in found.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    yield f"{name}.{node.name}", lines


def complex_functions(root: Path) -> list[str]:
    """Where ruff finds functions more complex than COMPLEXITY."""
    command = [
        str(Path(sys.executable).with_name("ruff")),
        "check",
        "--isolated",
        "--select",
        "C901",
        "--output-format",
        "json",
    ]
    limit = ["--config", f"lint.mccabe.max-complexity={COMPLEXITY}"]
    shown = subprocess.run(
        [*command, *limit, *PACKAGES], cwd=root, capture_output=True, text=True, check=False
    )
    return [
        f"{Path(one['filename']).relative_to(root)}: {one['message']}" for one in json.loads(shown.stdout)
    ]


def main() -> None:
    """Measure and print."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent
    found = modules(root)
    graph = imports(found)
    print("| package | files | levels of files | levels of folders | imports | per file | files in circles |")
    print("|---|---|---|---|---|---|---|")
    for package in PACKAGES:
        inside = {
            n: frozenset(o for o in graph[n] if _is_in(o, package)) for n in graph if _is_in(n, package)
        }
        count, within = len(inside), sum(map(len, inside.values()))
        figures = (count, levels(inside), levels(rooms(inside)), within, f"{within / count:.1f}")
        print(f"| `{package}` |", *(f"{one} |" for one in figures), sum(map(len, circles(inside))), "|")
    found = {**found, **modules(root, ["tests", "benchmarks", "scripts"])}
    _report(f"classes of more than {METHODS} methods or {CLASS_LINES} lines", _large_classes(found))
    large = ((name, len(path.read_text().splitlines())) for name, path in found.items())
    _report(f"files of more than {FILE_LINES} lines", [f"{n}: {c}" for n, c in large if c > FILE_LINES])
    _report(f"functions of more than {FUNCTION_LINES} lines", [f"{n}: {c}" for n, c in long_functions(found)])
    _report(f"functions of a complexity above {COMPLEXITY}", complex_functions(root.resolve()))


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _large_classes(found: Mapping[str, Path]) -> list[str]:
    ordered = sorted(classes(found), key=lambda one: -one[1])
    return [f"{name}: {methods} methods, {lines} lines" for name, methods, lines in ordered]


def _report(title: str, lines: list[str]) -> None:
    print(f"\n{title}: {len(lines)}")
    for line in lines:
        print(f"  {line}")


if __name__ == "__main__":
    main()
