"""The documentation as a site: it builds without a warning, loads nothing from elsewhere, and programs find its pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from scripts.write_llms import FILE, ROOT, pages, render, site


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as CI does; a link to a page or a heading that does not exist is a warning, and a warning an error."""
    folder = tmp_path_factory.mktemp("site")
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


class _Loads(HTMLParser):
    """The addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon", "preconnect"):
            self.found.append(given.get("href") or "")


def test_every_page_is_on_the_site_and_loads_nothing_from_elsewhere(built: Path) -> None:
    for source in (ROOT / "docs").rglob("*.md"):
        below = source.relative_to(ROOT / "docs").with_suffix("")
        page = built / (below.parent if below.name == "README" else below) / "index.html"
        loads = _Loads()
        loads.feed(page.read_text())
        assert loads.found, page
        for address in filter(None, loads.found):
            assert not re.match(r"(https?:)?//", address), f"{source.name} loads {address}"
            if not address.startswith("data:"):
                assert (page.parent / address.partition("?")[0]).resolve().exists(), (source.name, address)


def test_no_page_links_to_a_file_that_is_not_on_the_site(built: Path) -> None:
    for page in built.rglob("index.html"):
        for target in re.findall(r'<a [^>]*href="([^"#?:]+)["#?]', page.read_text()):
            found = (page.parent / target).resolve()
            assert found.exists() and found.is_relative_to(built), (
                f"{page.relative_to(built)} links to {target}"
            )


def test_programs_find_every_page(built: Path) -> None:
    assert FILE.read_text() == render(), "run: .venv/bin/python -m scripts.write_llms"
    whole = (built / "llms-full.txt").read_text()
    assert (built / "llms.txt").read_text() == FILE.read_text()
    listed = re.findall(r"\]\(([^)]+\.md)\)", FILE.read_text())
    top = [path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md"]
    assert sorted(listed) == sorted([*top, "decisions/README.md"])
    for page in pages():
        text = (ROOT / "docs" / page.path).read_text()
        assert (built / page.path).read_text() == text and text in whole


def test_a_broken_link_would_fail_the_build() -> None:
    assert site()["strict"] is True
    checked = site()["validation"]["links"]
    assert {checked[kind] for kind in ("not_found", "anchors", "unrecognized_links")} == {"warn"}
