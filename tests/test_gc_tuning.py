"""The collector's thresholds: few collections, and nothing stays for good."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from selfhost_transport.gc_tuning import tune_gc

ROUNDS = 100


class Circle:
    """What only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def tuned() -> Iterator[None]:
    before = gc.get_threshold()
    tune_gc()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("tuned")
def test_a_circle_that_outlived_collections_is_freed_when_others_follow() -> None:
    held = Circle()
    freed = weakref.ref(held)
    # It is as old as it can be.
    gc.collect()
    del held
    for _ in range(ROUNDS):
        # Each round is what one young collection takes, and is gone before the next; some of them are not counted.
        others = [[number] for number in range(gc.get_threshold()[0] + 1000)]
        others.clear()
    assert freed() is None
