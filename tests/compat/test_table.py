"""The published table is about the tests that exist, the versions that are pinned, and says that they pass."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.compat import table
from tests.compat.site import JS, ROOT, Outcome
from tests.compat.table import SUITES, feature_name, page, versions

PAGE = table.PAGE.read_text()
_JS_TEST = re.compile(r"^ *(?:test|prompt)\(\s*(['\"`])((?:\\.|(?!\1).)*)\1", re.MULTILINE)
_PY_CASE = re.compile(r'^@case\("((?:\\.|[^"])*)"(?:, reason="((?:\\.|[^"])*)")?', re.MULTILINE)
_GO_CASE = re.compile(r'^\t\t\{"([^"]*)", \w+\},$', re.MULTILINE)
_JAVA_CASE = re.compile(r'^ +play\("([^"]*)", Main::', re.MULTILINE)
_UNSUPPORTED = re.compile(r"^not supported: (.*) — (.*)$")


def declared() -> Iterator[Outcome]:
    """Every test that the suites declare, as if it had passed."""
    for suite in SUITES:
        if not suite.name:
            continue
        for _, name in _JS_TEST.findall((JS / f"{suite.name}.test.mjs").read_text()):
            name = name.replace("\\'", "'")
            unsupported = _UNSUPPORTED.match(name)
            yield Outcome(*((unsupported[1], True, "", unsupported[2]) if unsupported else (name, True)))
    for path in sorted((ROOT / "tests/compat/python_sdk").glob("*.py")):
        for feature, reason in _PY_CASE.findall(path.read_text()):
            yield Outcome(feature, True, "", reason)


def declared_elsewhere() -> Iterator[Outcome]:
    """The cases of the SDKs of compiled languages."""
    for path, case in (("go_sdk/main.go", _GO_CASE), ("java_sdk/Main.java", _JAVA_CASE)):
        names = case.findall((ROOT / "tests/compat" / path).read_text())
        assert len(names) >= 6
        yield from (Outcome(name, True) for name in names)


def _pattern(name: str) -> re.Pattern[str]:
    """A test's name; what is put into it while running may be anything."""
    return re.compile(".+".join(re.escape(part) for part in re.split(r"\$\{[^}]*\}", name)))


def _rows() -> list[str]:
    table_rows = [line for line in PAGE.split("\n## ", 1)[1].splitlines() if line.startswith("| ")]
    return [line for line in table_rows if not line.startswith(("| Feature", "| ---"))]


def test_every_test_of_the_suites_has_its_line() -> None:
    outcomes = [*declared(), *declared_elsewhere()]
    assert len(outcomes) > 100
    lines = _rows()
    reported = {line.split(" | ")[0].removeprefix("| ") for line in lines}
    names = [_pattern(feature_name(outcome)) for outcome in outcomes]
    missing = [name.pattern for name in names if not any(name.fullmatch(line) for line in reported)]
    gone = [line for line in reported if not any(name.fullmatch(line) for name in names)]
    assert not missing and not gone, "out of date; run: python -m tests.compat.table"
    for outcome in outcomes:
        assert not outcome.reason or f" | {outcome.reason} | " in PAGE


def test_everything_passes() -> None:
    assert table.FAIL not in PAGE and table.ABSENT not in "".join(_rows()).replace(" — ", "")
    assert all(line.endswith("| pass | pass |") for line in _rows())


def test_the_versions_are_those_of_the_lock_files() -> None:
    known = versions()
    for suite in SUITES:
        assert ", ".join(f"{package} {known[package]}" for package in suite.packages) in PAGE


@pytest.mark.parametrize("ok", [True, False])
def test_a_failure_is_shown(ok: bool) -> None:
    suite = SUITES[0]
    played = {
        suite: {"json": [Outcome("TRN-1 a feature", ok)], "msgpack": [Outcome("TRN-1 a feature", True)]}
    }
    line = f"| a feature | {'pass' if ok else '**fail**'} | pass |"
    assert line in page(played).splitlines()


def test_what_is_not_supported_is_reported_with_its_reason() -> None:
    suite = SUITES[0]
    played = {suite: {"json": [Outcome("deltas", True, "", "full messages")]}}
    assert "| deltas | ably | full messages | pass | — |" in page(played).splitlines()
