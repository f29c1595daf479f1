"""No block of the documentation is left out without a reason."""

from __future__ import annotations

import re

from tests.documentation.blocks import ROOT, Block, all_blocks
from tests.documentation.plan import PLAN, Row


def matches(row: Row, block: Block) -> bool:
    return row.page in (block.page, "*") and row.language == block.language and row.containing in block.text


def test_every_block_is_executed_or_has_a_reason() -> None:
    for block in all_blocks():
        rows = [row for row in PLAN if matches(row, block)]
        rows = [row for row in rows if row.page != "*"] or rows
        assert len(rows) == 1, f"{block.name} ({block.language}) is in {len(rows)} rows of plan.py"


def test_every_row_is_about_a_block_and_names_a_test_that_exists() -> None:
    tests = {
        name
        for folder in ("documentation", "deploy", "e2e", "worker")
        for file in (ROOT / "tests" / folder).glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    for row in PLAN:
        assert any(matches(row, block) for block in all_blocks()), f"there is no such block any more: {row}"
        assert bool(row.test) != bool(row.reason), row
        assert not row.test or row.test in tests, row
