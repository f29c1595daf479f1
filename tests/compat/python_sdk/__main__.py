"""Play all cases and print one JSON object for each: feature, ok, error, reason."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback

from tests.compat.python_sdk import auth, methods, mutable, presence, realtime, recovery, rest
from tests.compat.python_sdk.harness import CASES, Case, Stage

MODULES = (realtime, mutable, presence, rest, auth, recovery, methods)
CASE_TIMEOUT_S = 60.0
AT_ONCE = 6


async def _play(case: Case, turnstile: asyncio.Semaphore) -> None:
    stage, error = Stage(), ""
    async with turnstile:
        try:
            async with asyncio.timeout(CASE_TIMEOUT_S):
                await case.play(stage)
                await stage.close()
        except Exception:
            error = traceback.format_exc()
    outcome = {"feature": case.feature, "ok": not error, "error": error, "reason": case.reason}
    print("case " + json.dumps(outcome), flush=True)


async def _main() -> None:
    turnstile = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(_play(case, turnstile) for case in CASES))


logging.disable(logging.CRITICAL)
asyncio.run(_main())
