"""Write tests/times.txt, the files that a run in several processes begins with, from the report of a whole run.

scripts/test --junitxml=report.xml
.venv/bin/python -m scripts.write_test_times report.xml
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

_TIMES = Path(__file__).parent.parent / "tests" / "times.txt"
_SHORTEST_S = 2.0
_HEAD = "# Seconds of the test files that take longest: python -m scripts.write_test_times\n"


def times_of(report: Path) -> dict[str, float]:
    """Seconds of each test file, start and end of its fixtures included."""
    seconds: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).iter("testcase"):
        seconds[_path(case.attrib["classname"])] += float(case.attrib["time"])
    return seconds


def text_of(seconds: dict[str, float]) -> str:
    """The file: the longest first, short ones left out."""
    rows = sorted(
        ((s, path) for path, s in seconds.items() if s >= _SHORTEST_S), key=lambda row: (-row[0], row[1])
    )
    return _HEAD + "".join(f"{s:.0f} {path}\n" for s, path in rows)


def _path(name: str) -> str:
    """`tests.e2e.test_page` is tests/e2e/test_page.py; a class of tests may follow."""
    parts = name.split(".")
    last = next(number for number, part in enumerate(parts) if part.startswith("test_"))
    return "/".join(parts[: last + 1]) + ".py"


if __name__ == "__main__":
    _TIMES.write_text(text_of(times_of(Path(sys.argv[1]))))
