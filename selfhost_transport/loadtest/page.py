"""The report as one HTML page: no script, no font, no image from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from selfhost_transport.loadtest import plots
from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.result import RunResult
from selfhost_transport.loadtest.terminal import LABELS

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #111827; max-width: 58rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #e5e7eb }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
svg { max-width: 100%; height: auto } .ok { color: #047857 } .bad { color: #b91c1c } .note { color: #6b7280 }
"""

_PLOTS = (
    ("Token latency over time", plots.latency_over_time),
    ("Percentiles", plots.percentiles),
    ("Throughput", plots.throughput),
    ("The knee", plots.knee),
    ("Offered and achieved", plots.overload),
    ("First tokens under overload", plots.overload_latency),
    ("The load falls", plots.overload_over_time),
    ("Cancel", plots.cancels),
    ("CPU", plots.cpu),
    ("Memory", plots.memory),
)


def write_page(result: RunResult, path: Path) -> None:
    """Write the page."""
    path.write_text(render(result), encoding="utf-8")


def render(result: RunResult) -> str:
    """The page of a result."""
    load = result.load
    title = f"Load test: {load.scenario.value}, {load.turns} turns"
    sections = [
        f"<h1>{escape(title)}</h1>",
        _verdict(result),
        f"<p>{escape(_conditions(result))}</p>",
        _section("Latency, ms", _latencies(result)),
        _section("CPU and memory", _usage(result)),
        _section("Loads tried", _steps(result)),
        _section("Loads offered", _offered(result)),
        *(_section(name, plots.draw(result, picture)) for name, picture in _PLOTS),
        _section("Counts", _counts(result)),
        _section("Violations", _violations(result)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body>\n</html>\n"
    )


def _section(name: str, content: str) -> str:
    return f"<h2>{escape(name)}</h2>\n{content}" if content else ""


def _verdict(result: RunResult) -> str:
    lines = []
    if result.violation_counts:
        kinds = ", ".join(f"{count} {kind}" for kind, count in result.violation_counts.items())
        lines.append(f'<p class="bad"><strong>Failed:</strong> {escape(kinds)}</p>')
    else:
        lines.append('<p class="ok"><strong>No violation:</strong> nothing lost, repeated or reordered</p>')
    for check in result.checks:
        kind = "ok" if check.passed else "bad"
        lines.append(
            f'<p class="{kind}">{escape(check.name)}: {check.value:,.1f} (limit {check.limit:,.1f})</p>'
        )
    if result.generator_limit:
        lines.append(f'<p class="bad">The generator was the limit: {escape(result.generator_limit)}</p>')
    return "\n".join(lines)


def _conditions(result: RunResult) -> str:
    load, here = result.load, result.environment
    where = f"{here.cores} cores, {here.memory_bytes / 2**30:.0f} GB, {here.machine}, Python {here.python}"
    if here.gateways:
        where += f", Redis {here.redis}, {here.gateways} gateway(s), {here.workers} worker(s), all on it"
        where += f", tokens gathered for {here.rollup_window_ms} ms"
    return (
        f"{result.started}. {load.viewers} viewer(s) per turn, {load.rate:g} tokens/s per turn, "
        f"{load.tokens} tokens, {result.measured_s:.0f} s measured after {load.lead_s:.3g} s. "
        f"{result.tokens_per_s:,.0f} tokens/s received. {where}. {result.clock_note}"
    )


def _latencies(result: RunResult) -> str:
    rows = []
    for metric in Metric:
        found = result.summary(metric)
        if found.count:
            values = (found.p50, found.p90, found.p99, found.p999, found.max)
            rows.append([LABELS[metric], *(f"{value:,.1f}" for value in values), f"{found.count:,}"])
    return _table(("", "p50", "p90", "p99", "p99.9", "max", "count"), rows)


def _usage(result: RunResult) -> str:
    rows = [
        [
            role,
            f"{usage.cores:.2f}",
            f"{usage.us_per_token:.1f}" if usage.us_per_token else "-",
            f"{usage.rss_before / 1e6:.0f}",
            f"{usage.rss_after / 1e6:.0f}",
        ]
        for role, usage in result.usage.items()
    ]
    return _table(("", "cores", "us per token", "MB before", "MB after"), rows)


def _steps(result: RunResult) -> str:
    rows = [
        [
            str(step.turns),
            f"{step.tokens_per_s:,.0f}",
            f"{step.p50:.1f}",
            f"{step.p99:.1f}",
            "inside" if step.passed else step.why,
        ]
        for step in result.steps
    ]
    return _table(("turns", "tokens/s", "p50", "p99", "budget"), rows)


def _offered(result: RunResult) -> str:
    rows = [
        [
            f"{step.factor:g}",
            *(f"{rate:,.0f}" for rate in (step.offered_per_s, step.achieved_per_s, step.shed_per_s)),
            *(f"{ms:,.0f}" for ms in (step.first_token_p50, step.first_token_p99, step.refusal_p99)),
            ", ".join(f"{role} {rss / 1e6:,.0f}" for role, rss in step.memory.items()),
        ]
        for step in result.overload
    ]
    heads = (
        "times the capacity",
        "offered/s",
        "ended/s",
        "refused/s",
        "first token p50",
        "p99",
        "refusal p99",
        "most MB",
    )
    return _table(heads, rows)


def _counts(result: RunResult) -> str:
    rows = [
        [name, f"{count:,}"] for name, count in sorted((*result.outcomes.items(), *result.counters.items()))
    ]
    if result.redis_bytes_per_turn:
        rows.append(["Redis bytes per turn, live log included", f"{result.redis_bytes_per_turn:,.0f}"])
    return _table(("", "count"), rows)


def _violations(result: RunResult) -> str:
    rows = [[one.kind, one.session, one.turn, one.detail] for one in result.violations]
    return _table(("kind", "session", "turn", "detail"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    if not body:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"<table><tr>{head}</tr>\n{body}</table>"
