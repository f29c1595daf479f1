"""The faults that `python -m tests.mutants` puts in are faults of the code as it is now."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from selfhost_transport.settings import ENV_PREFIX
from tests.mutants.__main__ import ROOT, is_seen, put_in
from tests.mutants.mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_fault_has_its_place(mutation: Mutation, tmp_path: Path) -> None:
    (tmp_path / mutation.file).parent.mkdir(parents=True)
    shutil.copy(ROOT / mutation.file, tmp_path / mutation.file)
    put_in(mutation, tmp_path)
    assert (tmp_path / mutation.file).read_text() != (ROOT / mutation.file).read_text()


if os.environ.get(f"{ENV_PREFIX}LONG"):
    # Half an hour: what CONTRIBUTING.md calls a long form.
    @pytest.mark.timeout(500)
    @pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
    def test_a_fault_is_seen(mutation: Mutation) -> None:
        assert is_seen(mutation, 40)
