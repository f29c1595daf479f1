"""Does what the command line asked for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.loadtest.compare import show_comparison
from selfhost_transport.loadtest.page import render_comparison, write_page
from selfhost_transport.loadtest.plan import Job, Plan
from selfhost_transport.loadtest.preflight import check_local, check_target
from selfhost_transport.loadtest.prompts import DEFAULT, Conversation, read_prompts
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
    if job.local is not None:
        check_local(job.local, yes=job.yes)
    elif job.target is not None:
        check_target(job.target, job.load, yes=job.yes)
    console = Console()
    result = asyncio.run(_run(job, console))
    show(result, console)
    if job.json is not None:
        result.save(job.json)
    if job.html is not None:
        write_page(result, job.html)
    return result.passed


def prompts_of(path: Path | None) -> tuple[Conversation, ...]:
    """The conversations of a file, or those that are held without one. Raises InvalidArgument."""
    return DEFAULT if path is None else read_prompts(path)


def compare_files(before: Path, after: Path, html: Path | None = None) -> None:
    """Show two results side by side, on a page too if asked for. Raises InvalidArgument for a file that is no result."""
    old, new = RunResult.load_file(before), RunResult.load_file(after)
    names = _names((old, before), (new, after))
    show_comparison(old, new, Console(), names)
    if html is not None:
        html.write_text(render_comparison(old, new, names), encoding="utf-8")


def _names(*runs: tuple[RunResult, Path]) -> tuple[str, str]:
    """Labels that distinguish two runs: the names they were given, those of their files or, where all are the same, paths."""
    for labels in ([run.name or path.stem for run, path in runs], [path.stem for _, path in runs]):
        if labels[0] != labels[1]:
            return labels[0], labels[1]
    return str(runs[0][1]), str(runs[1][1])


async def _run(job: Job, console: Console) -> RunResult:
    async with AsyncExitStack() as stack:
        local: LocalStack | None = None
        target = job.target
        if job.local is not None:
            local = await stack.enter_async_context(LocalStack(job.local))
            target = local.target
        assert target is not None
        plan = Plan(
            target,
            job.load,
            job.budget,
            job.knee_ms,
            job.max_turns,
            job.overload,
            job.prices,
            job.name,
            job.command,
        )
        live = stack.enter_context(Live(console, quiet=job.quiet))
        # The loop of this thread watches the local processes meanwhile.
        return await asyncio.to_thread(Runner(plan, live, local).run)
