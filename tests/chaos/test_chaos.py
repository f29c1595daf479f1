"""P1 to P7 while everything breaks: the short form, `python -m tests.chaos` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.driver import run
from tests.chaos.verdict import BREACHES
from tests.e2e.stage import FULL


@pytest.mark.timeout(400)
async def test_trn_5_promises_hold_while_everything_breaks(tmp_path: Path) -> None:
    found = await run(tmp_path, 240 if FULL else 20, sessions=3, seed=7)
    assert not {name: found[name] for name in BREACHES if found[name]}, found
    assert found["turns"] > 10 and found["ended complete"] > 0 and found["ended cancelled"] > 0
    assert sum(count for name, count in found.items() if name.startswith("fault")) >= 5
