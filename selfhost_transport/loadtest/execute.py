"""Does what the command line asked for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.loadtest.compare import show_comparison
from selfhost_transport.loadtest.page import write_page
from selfhost_transport.loadtest.plan import Job, Plan
from selfhost_transport.loadtest.result import RunResult
from selfhost_transport.loadtest.run import Runner
from selfhost_transport.loadtest.stack import LocalStack
from selfhost_transport.loadtest.terminal import Live, show


def execute(job: Job) -> bool:
    """Run, show, write files. Returns whether the run passed. Raises ServiceError, InvalidArgument."""
    # Found out before the run, not after it.
    for path in (job.json, job.html):
        if path is not None and not path.parent.is_dir():
            raise InvalidArgument(f"there is no folder {path.parent}")
    console = Console()
    result = asyncio.run(_run(job, console))
    show(result, console)
    if job.json is not None:
        result.save(job.json)
    if job.html is not None:
        write_page(result, job.html)
    return result.passed


def compare_files(before: Path, after: Path) -> None:
    """Show two results side by side. Raises InvalidArgument for a file that is no result."""
    show_comparison(RunResult.load_file(before), RunResult.load_file(after), Console(), _names(before, after))


def _names(before: Path, after: Path) -> tuple[str, str]:
    """Labels that distinguish two files: their names or, where these are the same, their paths."""
    names = before.stem, after.stem
    return names if names[0] != names[1] else (str(before), str(after))


async def _run(job: Job, console: Console) -> RunResult:
    async with AsyncExitStack() as stack:
        local: LocalStack | None = None
        target = job.target
        if job.local is not None:
            local = await stack.enter_async_context(LocalStack(job.local))
            target = local.target
        assert target is not None
        plan = Plan(target, job.load, job.budget, job.knee_ms, job.max_turns, job.overload)
        live = stack.enter_context(Live(console, quiet=job.quiet))
        # The loop of this thread watches the local processes meanwhile.
        return await asyncio.to_thread(Runner(plan, live, local).run)
