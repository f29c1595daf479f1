"""The documentation keeps up with the code: the page of options, and every link between files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.write_configuration import PAGE, render
from selfhost_transport.settings import options

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_page_of_options_is_current() -> None:
    assert PAGE.read_text() == render(), "run: .venv/bin/python scripts/write_configuration.py"


def test_the_page_names_and_explains_every_option() -> None:
    text = PAGE.read_text()
    for option in options().values():
        assert option.description, f"{option.name} has no description"
        assert f"`{option.variable}`" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_files_that_the_architecture_names_exist() -> None:
    """Files are named from the top, from a package, or after another file of the same folder."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    tracked = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.suffix in {".py", ".lua"}}
    for name in re.findall(r"`([\w/]+\.(?:py|lua))`", text):
        assert any(path == name or path.endswith(f"/{name}") for path in tracked), f"no file {name}"


RECORDS = sorted(path for path in (ROOT / "docs" / "decisions").glob("*.md") if path.name != "README.md")


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_a_decision_states_context_decision_and_consequence(record: Path) -> None:
    text = record.read_text()
    assert text.startswith("# ")
    at = [text.find(f"\n\n{heading}: ") for heading in ("Context", "Decision", "Consequence")]
    assert -1 not in at and at == sorted(at)


def test_the_index_of_decisions_lists_every_record_once() -> None:
    listed = re.findall(r"\]\(([^)]+\.md)\)", (ROOT / "docs" / "decisions" / "README.md").read_text())
    assert sorted(listed) == [record.name for record in RECORDS]
