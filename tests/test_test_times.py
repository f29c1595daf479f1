"""The order in which several processes take the test files, and where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.write_test_times import text_of, times_of
from tests.longest_first import longest_first, times

ROOT = Path(__file__).parent.parent
REPORT = """<testsuites><testsuite>
<testcase classname="tests.e2e.test_page" name="test_a[x.y]" time="1.5"/>
<testcase classname="tests.test_docs" name="test_b" time="0.2"/>
<testcase classname="tests.e2e.test_page.TestOfAClass" name="test_c" time="2"/>
<testcase classname="tests.store.test_turns" name="test_d" time="7.4"/>
</testsuite></testsuites>"""


class Item:
    """What a collected test has that counts here."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid


def test_the_files_with_a_time_exist() -> None:
    assert [path for path in times() if not (ROOT / path).is_file()] == []


def test_the_longest_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.longest_first.times", lambda: {"tests/b.py": 3.0, "tests/c.py": 9.0})
    items = [Item(f"tests/{name}") for name in ("a.py::t", "b.py::t1", "c.py::t2", "c.py::t1[b.py::]")]
    longest_first(items)  # type: ignore[arg-type]
    assert [item.nodeid for item in items] == [
        "tests/c.py::t2",
        "tests/c.py::t1[b.py::]",
        "tests/b.py::t1",
        "tests/a.py::t",
    ]


def test_the_times_are_those_of_a_report(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    assert text_of(times_of(tmp_path / "report.xml")).splitlines()[1:] == [
        "7 tests/store/test_turns.py",
        "4 tests/e2e/test_page.py",
    ]
