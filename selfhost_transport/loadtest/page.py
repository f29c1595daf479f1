"""The report as one HTML page: no script, no font, no image from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from selfhost_transport.loadtest import plots
from selfhost_transport.loadtest.compare import differences
from selfhost_transport.loadtest.glossary import GLOSSARY
from selfhost_transport.loadtest.glossary import WORDS as _WORDS
from selfhost_transport.loadtest.result import RunResult
from selfhost_transport.loadtest.terminal import LABELS, knee_text, load_text, model_lines, shown_metrics

_STYLE = """
:root { color-scheme: light dark; --line: #e5e7eb; --ok: #047857; --bad: #b91c1c; --note: #6b7280 }
@media (prefers-color-scheme: dark) { :root { --line: #374151; --ok: #34d399; --bad: #f87171; --note: #9ca3af } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
svg { max-width: 100%; height: auto } .ok { color: var(--ok) } .bad { color: var(--bad) } .note { color: var(--note) }
.verdict { font-size: 1.15rem; border-left: .4rem solid; padding: .3rem .8rem }
@media (max-width: 34rem) { body { margin: 1rem auto; padding: 0 .6rem } th, td { padding: .2rem .25rem; font-size: .7rem } }
.wide { overflow-x: auto } code { overflow-wrap: anywhere } dt { font-weight: 600 } dd { margin: 0 0 .5rem 1rem }
"""

_PLOTS = (
    ("How long people wait", plots.first_tokens),
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
    title = f"Load test: {result.name or f'{load.scenario.value}, {load.turns} turns'}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        _verdict(result),
        f"<p><code>{escape(result.command)}</code></p>" if result.command else "",
        _list(model_lines(result)),
        f"<p>{escape(_conditions(result))}</p>",
        _section("Latency, ms", _latencies(result)),
        _section("CPU and memory", _usage(result)),
        _section("Loads tried", _steps(result)),
        _section("Loads offered", _offered(result)),
        *(_section(name, plots.draw(result, picture)) for name, picture in _PLOTS),
        _section("Counts", _counts(result)),
        _section("Violations", _violations(result)),
        _section("What the words mean", _glossary(result)),
    ]
    return _document(title, sections)


def _document(title: str, sections: Sequence[str]) -> str:
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
    missed = [check.name for check in result.checks if not check.passed]
    kinds = [f"{count} {kind}" for kind, count in result.violation_counts.items()]
    if result.passed:
        said = "<strong>Passed:</strong> nothing lost, repeated, reordered or late after a cancel"
    else:
        said = (
            f"<strong>Failed:</strong> {escape(', '.join([*kinds, *(f'{name} missed' for name in missed)]))}"
        )
    lines = [f'<p class="verdict {"ok" if result.passed else "bad"}">{said}</p>']
    if result.knee is not None:
        lines.append(f"<p><strong>{escape(knee_text(result))}</strong></p>")
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
        f"{result.started}. {load_text(result)}, {result.measured_s:.0f} s measured after {load.lead_s:.3g} s. "
        f"{result.tokens_per_s:,.0f} {'words' if load.any_text else 'tokens'}/s received. {where}. {result.clock_note}"
    )


def _latencies(result: RunResult) -> str:
    rows = []
    for metric in shown_metrics(result):
        found = result.summary(metric)
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
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _glossary(result: RunResult) -> str:
    words = [(LABELS[metric], GLOSSARY[metric]) for metric in shown_metrics(result)]
    return f"<dl>{''.join(f'<dt>{escape(word)}</dt><dd>{escape(text)}</dd>' for word, text in (*words, *_WORDS))}</dl>"


def render_comparison(before: RunResult, after: RunResult, names: tuple[str, str]) -> str:
    """Two runs side by side, under their names; a change for the worse is red, one for the better green."""
    rows = []
    for found in differences(before, after):
        if found.before or found.after:
            change = "new" if found.change is None else f"{found.change:+.0%}"
            kind = {True: "ok", False: "bad", None: ""}[found.improved]
            cells = f"<td>{escape(found.name)}</td><td>{found.before:,.1f}</td><td>{found.after:,.1f}</td>"
            rows.append(f'<tr>{cells}<td class="{kind}">{change}</td></tr>')
    heads = "".join(
        f"<th>{escape(name)}<br>{'passed' if run.passed else 'failed'}</th>"
        for name, run in zip(names, (before, after), strict=True)
    )
    sections = [
        f"<h1>{escape(' and '.join(names))}</h1>",
        '<p class="bad">The two runs had different loads: compare with caution.</p>'
        if before.load != after.load
        else "",
        f'<div class="wide"><table><tr><th></th>{heads}<th>change</th></tr>{"".join(rows)}</table></div>',
        *(
            f"<p>{escape(name)}: <code>{escape(run.command)}</code><br>{escape(_conditions(run))}</p>"
            for name, run in zip(names, (before, after), strict=True)
        ),
    ]
    return _document(" and ".join(names), sections)
