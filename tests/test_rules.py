"""Every rule that code or a test cites by number is in docs/rules.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "rules.md").read_text()
RULES = set(re.findall(r"^\| ([A-Z]+-?\d+) \|", PAGE, re.MULTILINE))
SECTIONS = set(re.findall(r"^\| (\d+(?:\.\d+)*) \|", PAGE, re.MULTILINE))
_FAMILIES = "|".join(sorted({rule.partition("-")[0] for rule in RULES if "-" in rule}))
_RULE = re.compile(rf"\b(?:P(?:[1-9]|1\d)|(?:{_FAMILIES})-\d+)\b")
_SECTION = re.compile(r"\bsections? (\d+(?:\.\d+)*)")
_FOLDERS = ("selfhost_transport", "gateway", "agent_worker", "tests")
_SUFFIXES = {".py", ".lua", ".mjs"}


def _sources() -> Iterator[tuple[Path, str]]:
    for folder in _FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in _SUFFIXES and not {"node_modules", ".venv", "vectors"} & set(path.parts):
                yield path.relative_to(ROOT), path.read_text()


def test_no_rule_is_cited_that_the_page_does_not_have() -> None:
    missing = {
        f"{path}: {found}" for path, text in _sources() for found in _RULE.findall(text) if found not in RULES
    }
    assert not missing, sorted(missing)


def test_no_section_is_cited_that_the_page_does_not_have() -> None:
    # Of an RFC the citation says so.
    missing = {
        f"{path}: section {found[1]}"
        for path, text in _sources()
        for found in _SECTION.finditer(text)
        if found[1] not in SECTIONS and "RFC" not in text[max(0, found.start() - 40) : found.start()]
    }
    assert not missing, sorted(missing)
