"""Python's cyclic garbage collector, set for processes that hold many small live objects."""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 50_000, 5, 4


def tune_gc() -> None:
    """Collect less often, and skip the objects that exist already. Call it once a process is ready.

    With the defaults a full collection walks every connection and session several times a second under load; almost
    nothing on the path of a token is part of a cycle. Halves the p99 near the knee (docs/performance.md).

    What has outlived a collection is looked at again after 250,000 and after a million further objects. Cycles of libraries and
    of user code would otherwise stay for good.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
