"""`python -m tests.chaos --seconds 300`: the long form of the experiment; prints what it counted."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.chaos.driver import run
from tests.chaos.verdict import BREACHES


def main() -> int:
    """Exit status 1 when a promise was broken."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=300)
    options.add_argument("--sessions", type=int, default=6)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--cluster", action="store_true", help="on a Cluster that changes its servers")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(
            run(
                Path(folder),
                given.seconds,
                sessions=given.sessions,
                seed=given.seed,
                cluster=given.cluster,
            )
        )
    print(json.dumps({**dict.fromkeys(BREACHES, 0), **dict(sorted(found.items()))}, indent=1))
    return int(any(found[name] for name in BREACHES))


if __name__ == "__main__":
    sys.exit(main())
