"""Results: written, read, compared, judged, and shown on a page that needs no network."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.loadtest.compare import differences, show_comparison
from selfhost_transport.loadtest.execute import compare_files
from selfhost_transport.loadtest.page import render
from selfhost_transport.loadtest.plan import Budget, Scenario
from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.result import RunResult
from selfhost_transport.loadtest.terminal import show
from selfhost_transport.loadtest.thresholds import check_budget
from tests.loadtest.results import A_VIOLATION, a_result


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    result = a_result()
    result.save(path)
    assert RunResult.load_file(path) == result


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', "[1]"])
def test_files_that_are_no_result(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=r"other\.json"):
        RunResult.load_file(path)
    with pytest.raises(InvalidArgument, match="cannot read"):
        RunResult.load_file(tmp_path / "missing.json")


def test_thresholds() -> None:
    result = a_result()
    p99 = result.summary(Metric.TOKEN).p99
    kept = check_budget(result, Budget(max_p99_ms=p99, min_tokens_per_s=100, max_us_per_token=20))
    assert [check.passed for check in kept] == [True, True, True]
    missed = check_budget(result, Budget(max_p99_ms=p99 - 1, min_tokens_per_s=101, max_us_per_token=19))
    assert [check.passed for check in missed] == [False, False, False]
    assert check_budget(result, Budget()) == []


def test_a_limit_on_what_was_not_measured_is_missed() -> None:
    result = a_result()
    del result.measures[Metric.CANCEL_ACK]
    (check,) = check_budget(result, Budget(max_cancel_p99_ms=1000))
    assert not check.passed


def test_a_violation_fails_the_run_whatever_the_speed() -> None:
    result = a_result()
    assert result.passed
    result.violation_counts = {"lost": 1}
    assert not result.passed


def test_differences() -> None:
    found = {one.name: one for one in differences(a_result(), a_result(slower=2.0))}
    assert found["token due to received p99 ms"].change == pytest.approx(1.0, abs=0.01)
    assert found["gateway us/token"].change == pytest.approx(1.0)
    assert found["tokens/s"].change == 0


def test_a_comparison_names_different_loads() -> None:
    other = a_result(slower=2.0)
    other.load = replace(other.load, turns=5)
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    show_comparison(a_result(), other, console)
    console.file.close()
    text = console.export_text()
    assert "different loads" in text
    assert "+100%" in text


def test_the_summary_says_what_a_person_needs() -> None:
    result = a_result()
    result.violation_counts, result.violations = {"lost": 1}, [A_VIOLATION]
    result.generator_limit = "it used 1.0 cores"
    console = Console(record=True, width=120, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    show(result, console)
    console.file.close()
    text = console.export_text()
    for expected in (
        "100 tokens/s",
        "cancel to terminal",
        "gateway",
        "generator was the limit",
        "failed: 1 lost",
    ):
        assert expected in text


class _Outside(HTMLParser):
    """Collects tags that are open at the end, and everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action") and not (value or "").startswith("#"):
                self.fetched.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")


def test_the_page_is_complete_in_itself() -> None:
    result = a_result()
    result.violation_counts, result.violations = {"lost": 1}, [A_VIOLATION]
    page = render(result)
    outside = _Outside()
    outside.feed(page)
    assert outside.fetched == []
    assert outside.tags.isdisjoint({"script", "link", "img", "iframe"})
    assert not re.search(r"url\((?!#)|@import", page)
    assert len(outside.ids) == len(set(outside.ids)), "drawings share ids"
    assert page.count("<svg") == 7
    assert "loadtest:&lt;script&gt;" in page
    assert "p99 &lt;over&gt;" in page


def test_the_page_of_an_empty_result() -> None:
    result = a_result()
    empty = RunResult("r", result.started, replace(result.load, scenario=Scenario.IDLE), result.environment)
    assert "<svg" not in render(empty)


def test_a_comparison_names_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("main.json", "faster.json"):
        a_result().save(tmp_path / name)
    compare_files(tmp_path / "main.json", tmp_path / "faster.json")
    heading = capsys.readouterr().out.splitlines()[0].split()
    assert heading[:2] == ["main", "faster"]


def test_the_page_of_a_comparison_has_real_names_and_says_what_got_worse(tmp_path: Path) -> None:
    before, after = a_result(), a_result(slower=2.0)
    before.name, after.name = "before <lunch>", "after lunch"
    before.command = "selfhost-transport loadtest --turns 7"
    after.violation_counts = {"lost": 3}
    for result, name in ((before, "a.json"), (after, "b.json")):
        result.save(tmp_path / name)
    page = tmp_path / "comparison.html"
    compare_files(tmp_path / "a.json", tmp_path / "b.json", page)
    text = page.read_text(encoding="utf-8")
    outside = _Outside()
    outside.feed(text)
    assert outside.fetched == [] and outside.tags.isdisjoint({"script", "link", "img", "iframe", "lunch"})
    assert "<th>before &lt;lunch&gt;<br>passed</th><th>after lunch<br>failed</th>" in text
    assert "before &lt;lunch&gt;: <code>selfhost-transport loadtest --turns 7</code>" in text
    # Twice as slow is red, and what has come where there was nothing is named.
    assert re.search(r'gateway us/token</td><td>20.0</td><td>40.0</td><td class="bad">\+100%', text)
    assert '<td>violations</td><td>0.0</td><td>3.0</td><td class="bad">new</td>' in text
    assert "different loads" not in text and 'name="viewport"' in text


def test_tokens_of_any_text_have_no_time_that_they_were_due_to_compare() -> None:
    before, after = a_result(), a_result(slower=2.0)
    assert "token due to received p99 ms" in {found.name for found in differences(before, after)}
    after.load = replace(after.load, any_text=True)
    names = {found.name for found in differences(before, after)}
    assert "token due to received p99 ms" not in names and "published to received p99 ms" in names


def test_runs_of_one_name_have_those_of_their_files(tmp_path: Path) -> None:
    for name in ("monday", "tuesday"):
        result = a_result()
        result.name = "nightly"
        result.save(tmp_path / f"{name}.json")
    compare_files(tmp_path / "monday.json", tmp_path / "tuesday.json", tmp_path / "c.html")
    assert "<h1>monday and tuesday</h1>" in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_a_text_that_no_script_has_is_explained() -> None:
    for any_text, explained in ((False, True), (True, False)):
        result = a_result()
        result.load = replace(result.load, any_text=any_text)
        result.violation_counts, result.violations = {"wrong_text": 1}, [A_VIOLATION]
        console = Console(record=True, width=400, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
        show(result, console)
        console.file.close()
        assert ("give --any-text" in console.export_text()) is explained
