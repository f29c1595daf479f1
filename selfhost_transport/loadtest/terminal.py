"""What a person sees: bars while it runs, and a summary after it."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from selfhost_transport.loadtest import generator
from selfhost_transport.loadtest.histogram import Summary
from selfhost_transport.loadtest.plan import Load
from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.result import OverloadStep, RampStep, RunResult
from selfhost_transport.loadtest.run import Watcher
from selfhost_transport.loadtest.thresholds import GENERATOR_ROLE
from selfhost_transport.loadtest.window import Window

LABELS: Final[dict[Metric, str]] = {
    Metric.FIRST_TOKEN: "send to first token",
    Metric.TOKEN: "token due to received",
    Metric.DELIVERY: "published to received",
    Metric.GAP: "between chunks",
    Metric.SEND_ACK: "send to acknowledged",
    Metric.REFUSAL: "send to refused, to send later",
    Metric.QUEUE_WAIT: "waiting for a worker",
    Metric.CANCEL_ACK: "cancel to acknowledged",
    Metric.CANCEL_CONTENT: "cancel to last content",
    Metric.CANCEL_TERMINAL: "cancel to terminal",
    Metric.CONNECT: "connect",
    Metric.ATTACH: "attach",
    Metric.RECONNECT: "lost to attached again",
    Metric.TOTAL: "send to end",
    Metric.TIME_PER_TOKEN: "per token of a turn",
    Metric.RELOAD: "reload to history read",
    Metric.LAG: "generator's own lateness",
}


class _Details(ProgressColumn):
    """Rates and counts beside the bar."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("details", "")))


class Live(Watcher):
    """Two bars: connections made, and time gone. A context; silent when `quiet`."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            _Details(),
            console=console,
            disable=quiet,
            transient=True,
        )
        self._connecting = self._bars.add_task("connecting", total=None, visible=False)
        self._loading = self._bars.add_task("load", total=None, visible=False)
        self._window: Window | None = None
        self._last = (0.0, 0)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def began(self, load: Load) -> None:
        """A run begins to connect."""
        self._window, self._last = None, (time.time(), 0)
        self._bars.reset(self._connecting, total=load.connections, visible=True)
        self._bars.reset(self._loading, total=load.lead_s + load.duration_s, visible=False)
        self._bars.update(self._loading, description=f"{load.scenario.value} x {load.turns}")

    def running(self, window: Window) -> None:
        """The load starts."""
        self._window = window
        self._bars.update(self._connecting, visible=False)
        self._bars.update(self._loading, visible=True)

    def progress(self, progress: generator.ShareProgress) -> None:
        """Move the bars."""
        now = time.time()
        before, tokens = self._last
        rate = (progress.tokens - tokens) / max(now - before, 0.001)
        self._last = (now, progress.tokens)
        self._bars.update(self._connecting, completed=progress.connected)
        if self._window is None:
            return
        details = f"{progress.ended}/{progress.sent} turns, {rate:,.0f} tokens/s"
        if progress.violations:
            details += f", {progress.violations} violations"
        self._bars.update(self._loading, completed=now - self._window.start, details=details)

    def stepped(self, step: RampStep) -> None:
        """One load of a ramp is done."""
        verdict = "[green]inside[/]" if step.passed else f"[yellow]over[/] ({step.why})"
        self._console.print(
            f"{step.turns:>6} turns  {step.tokens_per_s:>10,.0f} tokens/s  p50 {step.p50:.1f}  "
            f"p99 {step.p99:.1f} ms  {verdict}"
        )

    def offered(self, step: OverloadStep) -> None:
        """One offered load of an overload is done."""
        calm = f"  after it p99 {step.calm_first_token_p99:,.0f} ms" if step.calm_first_token_p99 else ""
        memory = "".join(f"  {role} {rss / 1e6:,.0f} MB" for role, rss in step.memory.items())
        self._console.print(
            f"{step.factor:>4g} x  {step.offered_per_s:>6,.0f} offered/s  {step.achieved_per_s:>6,.0f} ended/s  "
            f"{step.shed_per_s:>6,.0f} refused/s  first token p50 {step.first_token_p50:,.0f}  "
            f"p99 {step.first_token_p99:,.0f} ms{calm}{memory}",
            soft_wrap=True,
        )


def show(result: RunResult, console: Console) -> None:
    """The summary of a run."""
    console.print(f"\n[bold]{title(result)}[/]: {load_text(result)}, {result.measured_s:.0f} s measured")
    expected = f" of {result.expected_tokens_per_s:,.0f} due" if result.expected_tokens_per_s else ""
    what = "words" if result.load.any_text else "tokens"
    console.print(f"{result.tokens_per_s:,.0f} {what}/s received{expected}, in {result.frames:,} frames")
    console.print(_latencies(result))
    if result.usage:
        console.print(_usage(result))
    _counts(result, console)
    _models(result, console)
    if result.knee is not None:
        console.print(f"[bold]{knee_text(result)}[/]")
    _verdict(result, console)


def title(result: RunResult) -> str:
    """The run in a few words."""
    return result.name or result.load.scenario.value


def load_text(result: RunResult) -> str:
    """What the load was."""
    load = result.load
    if not load.any_text:
        return f"{load.turns} turns, {load.viewers} viewer(s) each, {load.tokens} tokens at {load.rate:g} per second"
    arriving = f"{load.arrivals_per_s:g} conversations per second"
    who = arriving if load.arrivals_per_s else f"{load.turns} people"
    if load.people:
        who += " (" + ", ".join(f"{one.count} {one.habit}" for one in load.people) + ")"
    think = f", thinking {load.think} s" if load.think != "0" else ""
    return f"{who}, {load.prompt_count} conversation(s) in turn{think}, {load.viewers} viewer(s) each"


def _latencies(result: RunResult) -> Table:
    table = Table(title="milliseconds", title_justify="left", box=None, header_style="dim")
    table.add_column("")
    for name in ("p50", "p90", "p99", "p99.9", "max", "count"):
        table.add_column(name, justify="right")
    for metric in shown_metrics(result):
        found: Summary = result.summary(metric)
        values = (found.p50, found.p90, found.p99, found.p999, found.max)
        table.add_row(LABELS[metric], *(f"{value:,.1f}" for value in values), f"{found.count:,}")
    return table


def shown_metrics(result: RunResult) -> list[Metric]:
    """The metrics with values. Of a model that has no schedule, tokens have no time that they were due."""
    hidden = {Metric.TOKEN} if result.load.any_text else set()
    return [metric for metric in LABELS if metric not in hidden and result.summary(metric).count]


def _usage(result: RunResult) -> Table:
    table = Table(title="CPU and memory", title_justify="left", box=None, header_style="dim")
    for name in ("", "processes", "cores", "us/token", "MB before", "MB after"):
        table.add_column(name, justify="right" if name else "left")
    for role, usage in result.usage.items():
        cost = f"{usage.us_per_token:.1f}" if usage.us_per_token else "-"
        table.add_row(
            role,
            str(usage.processes),
            f"{usage.cores:.2f}",
            cost,
            f"{usage.rss_before / 1e6:.0f}",
            f"{usage.rss_after / 1e6:.0f}",
        )
    return table


def _counts(result: RunResult, console: Console) -> None:
    outcomes = ", ".join(f"{count:,} {name}" for name, count in sorted(result.outcomes.items()))
    console.print(f"turns: {result.counters.get('turns_sent', 0):,} sent; {outcomes or 'none ended'}")
    if result.redis_bytes_per_turn:
        console.print(f"Redis: {result.redis_bytes_per_turn:,.0f} bytes per turn, its live log included")
    costs = {role: result.cpu_s_per_1000_turns(role) for role in result.usage if role != GENERATOR_ROLE}
    if result.tokens and costs and not result.load.any_text:
        text = ", ".join(f"{role} {seconds:.1f}" for role, seconds in costs.items())
        console.print(f"CPU seconds per 1,000 turns of {result.load.tokens} tokens: {text}")
    if result.bytes_per_connection and not result.tokens:
        console.print(f"gateway: {result.bytes_per_connection / 1024:.1f} KB per attached connection")
    others = {name: count for name, count in result.counters.items() if name != "turns_sent"}
    if others:
        console.print(", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in others.items()))


def knee_text(result: RunResult) -> str:
    """Where the knee is, and how sure that is."""
    knee = result.knee
    if knee is None:
        return ""
    if not knee.turns:
        over = knee.above_tried - knee.above_inside
        return f"knee: below {knee.above} turns at once, which were over the budget in {over} of {knee.above_tried} runs"
    found = f"knee: {knee.turns} turns at once (inside the budget in {knee.inside} of {knee.tried} runs"
    if not knee.above:
        return f"{found}; no load that was tried was over it)"
    over = knee.above_tried - knee.above_inside
    return f"{found}; {knee.above} turns were over it in {over} of {knee.above_tried})"


def model_lines(result: RunResult) -> list[str]:
    """What one's own agent did: the speed of its turns, what it used and cost, what failed."""
    lines = []
    per_token = result.summary(Metric.TIME_PER_TOKEN)
    if per_token.p50:
        slow = 1e3 / per_token.p99 if per_token.p99 else 0.0
        lines.append(
            f"tokens per second of a turn: {1e3 / per_token.p50:,.1f} (median), {slow:,.1f} (the slowest hundredth)"
        )
    used = result.model_usage
    if used:
        cost = f"; cost {result.cost:,.4f}" if result.prices is not None else ""
        tokens = f"{used.get('input', 0):,} tokens in, {used.get('output', 0):,} out"
        lines.append(f"usage reported by {used.get('turns', 0):,} turns: {tokens}{cost}")
    elif result.prices is not None:
        lines.append("cost: unknown, no turn reported its usage")
    for said, count in sorted(result.errors.items(), key=lambda one: -one[1]):
        lines.append(f"error: {count:,} x {said}")
    return lines


def _models(result: RunResult, console: Console) -> None:
    for line in model_lines(result):
        console.print(line, markup=False)


def _verdict(result: RunResult, console: Console) -> None:
    if result.clock_note:
        console.print(f"[dim]{result.clock_note}[/]")
    if result.generator_limit:
        console.print(f"[yellow]the generator was the limit:[/] {result.generator_limit}")
    for violation in result.violations[:10]:
        console.print(
            f"[red]{violation.kind}[/] {violation.session} {violation.turn}: {violation.detail}", markup=True
        )
    for check in result.checks:
        mark = "[green]ok[/]" if check.passed else "[red]missed[/]"
        console.print(f"{mark} {check.name}: {check.value:,.1f} (limit {check.limit:,.1f})")
    total = sum(result.violation_counts.values())
    if total:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(result.violation_counts.items()))
        console.print(f"[bold red]failed[/]: {kinds}")
        if result.violation_counts.get("wrong_text") and not result.load.any_text:
            console.print(
                f"The text differs from the expected one: is namespace {result.load.namespace!r} answered by the scripted model "
                "(`selfhost-transport worker` without an argument), or by an agent that passes the fake provider's text on? For "
                "one that says other things give --any-text."
            )
    elif result.passed:
        what = "nothing" if result.load.any_text else "no token"
        console.print(f"[bold green]passed[/]: {what} lost, repeated, reordered or late after a cancel")
    else:
        console.print("[bold red]failed[/]: a threshold was missed")
