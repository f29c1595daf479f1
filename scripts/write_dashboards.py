"""Writes the Grafana dashboard and the Prometheus alert rules of deploy/ from the metrics of the processes themselves.

Every metric gets a panel of its kind. An alert names metrics that exist, or this script fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client.core import Metric

from agent_worker.output.usage import Usage
from agent_worker.runtime.metrics import worker_families
from agent_worker.runtime.turn_times import TurnTimes
from agent_worker.runtime.worker import WorkerStatistics
from gateway.metrics import Metrics
from selfhost_transport.metrics import DeploymentTotals
from selfhost_transport.store.statistics import QueueState, Statistics

DEPLOY: Final = Path(__file__).parent.parent / "deploy"
DASHBOARD: Final = DEPLOY / "grafana" / "dashboards" / "selfhost-transport.json"
ALERTS: Final = DEPLOY / "prometheus" / "alerts.yml"

_RATE: Final = "$__rate_interval"
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_QUANTILES: Final = (0.5, 0.95, 0.99)
_WIDTH, _HEIGHT = 8, 7


@dataclass(frozen=True)
class Family:
    """A metric of one kind of process. `everywhere`: each process reports the deployment's total."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...]
    everywhere: bool = False

    @property
    def samples(self) -> tuple[str, ...]:
        """The names under which Prometheus has it."""
        if self.kind == "counter":
            return (f"{self.name}_total",)
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


def sections() -> dict[str, list[Family]]:
    """All metrics, by the process that has them."""
    totals = DeploymentTotals(Statistics({}, 0, {"agent": QueueState(0, 0.0)}))
    gateway, times = Metrics(), TurnTimes()
    worker = worker_families(WorkerStatistics(0, 0, {"": 0}, usage={"": Usage()}))
    return {
        "Deployment": [_family(one, everywhere=True) for one in totals.collect()],
        "Gateways": [_family(one, _labels(gateway, one)) for one in gateway.registry.collect()],
        "Workers": [
            *(_family(one) for one in worker),
            *(_family(one, _labels(times, one)) for one in times.registry.collect()),
        ],
    }


def _labels(holder: Any, metric: Metric) -> tuple[str, ...]:
    """Labels of a metric that has no samples before it is used."""
    (own,) = (one for one in vars(holder).values() if getattr(one, "_name", None) == metric.name)
    return tuple(own._labelnames)


def _family(metric: Metric, labels: tuple[str, ...] | None = None, *, everywhere: bool = False) -> Family:
    if labels is None:
        labels = tuple({name: None for sample in metric.samples for name in sample.labels})
    return Family(metric.name, metric.type, metric.documentation, labels, everywhere)


def queries(family: Family) -> Iterator[tuple[str, str]]:
    """The queries of a panel, each with its legend."""
    by = f" by ({', '.join(family.labels)})" if family.labels else ""
    legend = " ".join(f"{{{{{name}}}}}" for name in family.labels) or family.name.removeprefix("sht_")
    how = "max" if family.everywhere else "sum"
    if family.kind == "histogram":
        inner = ", ".join(("le", *family.labels))
        for quantile in _QUANTILES:
            rate = f"sum by ({inner}) (rate({family.name}_bucket{_SELECTED}[{_RATE}]))"
            yield (
                f"histogram_quantile({quantile}, {rate})",
                f"p{quantile * 100:g} {legend if family.labels else ''}".strip(),
            )
    elif family.kind == "counter":
        yield f"{how}{by} (rate({family.samples[0]}{_SELECTED}[{_RATE}]))", legend
    else:
        yield f"{how}{by} ({family.name}{_SELECTED})", legend


_SELECTED: Final = '{job=~"$job"}'


def _unit(family: Family) -> str:
    if family.kind == "counter":
        return "s" if family.name.endswith("_seconds") else "cps"
    return "s" if family.name.endswith("_seconds") else "short"


def _panel(number: int, family: Family, left: int, top: int) -> dict[str, Any]:
    targets = [
        {"refId": chr(65 + index), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
        for index, (query, legend) in enumerate(queries(family))
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": family.meaning,
        "description": f"`{'`, `'.join(family.samples)}`",
        "datasource": _SOURCE,
        "gridPos": {"x": left, "y": top, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": _unit(family), "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, families in sections().items():
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
             "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}}
        )  # fmt: skip
        top += 1
        for index, family in enumerate(families):
            left, down = index % 3 * _WIDTH, index // 3 * _HEIGHT
            panels.append(_panel(len(panels) + 1, family, left, top + down))
        top += -(-len(families) // 3) * _HEIGHT
    return {
        "uid": "selfhost-transport",
        "title": "Selfhost Transport",
        "tags": ["selfhost-transport"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_variable_of_source(), _variable_of_job()]},
        "panels": panels,
    }


def _variable_of_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable_of_job() -> dict[str, Any]:
    return {
        "name": "job", "label": "Job", "type": "query", "datasource": _SOURCE, "includeAll": True, "multi": True,
        "query": 'label_values({__name__=~"sht_.+"}, job)', "refresh": 2,
        "current": {"text": "All", "value": "$__all"}, "allValue": ".*",
    }  # fmt: skip


@dataclass(frozen=True)
class Alert:
    """A rule: what is wrong, for how long, and what to do."""

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    remedy: str


def alerts() -> list[Alert]:
    """The rules. Thresholds suit interactive answers; change them in a copy."""
    return [
        Alert(
            "TurnsWaitTooLong", "max by (agent) (sht_queue_oldest_seconds) > 5", "1m", "critical",
            "Turns of {{ $labels.agent }} wait {{ $value | humanizeDuration }} for a worker",
            "Start more workers, or find out why those that run take no turns.",
        ),
        Alert(
            "TurnsFail",
            'max(rate(sht_turns_total{outcome="failed"}[5m]))'
            " > 0.05 * clamp_min(sum(max by (outcome) (rate(sht_turns_total[5m]))), 0.02)",
            "5m", "critical", "More than 5 % of the turns fail", "The workers' log says why: `turn.attempt_failed`.",
        ),
        Alert(
            "WorkersAreLost", "max(increase(sht_lease_losses_total[10m])) > 3", "1m", "warning",
            "{{ $value | humanize }} leases expired in ten minutes",
            "Workers die, are paused, or cannot reach Redis: look for restarts and `worker.loop_blocked`.",
        ),
        Alert(
            "AgentBlocksTheLoop", "sum by (instance) (rate(sht_worker_loop_blocked_seconds_total[5m])) > 0.05", "5m",
            "warning", "User code blocks the loop of {{ $labels.instance }}",
            "`worker.loop_blocked` in its log names the turn; call blocking code in a thread.",
        ),
        Alert(
            "AgentsIgnoreCancels", "sum by (instance) (sht_worker_turns_unwinding) > 10", "5m", "warning",
            "Cancelled agents of {{ $labels.instance }} do not return",
            "An agent swallows its cancellation; their model calls may go on.",
        ),
        Alert(
            "FirstOutputIsSlow",
            "histogram_quantile(0.95, sum by (le, agent) (rate(sht_worker_first_output_seconds_bucket[5m]))) > 10",
            "5m", "warning", "The first output of {{ $labels.agent }} takes {{ $value | humanizeDuration }} (p95)",
            "The model or a tool before it is slow.",
        ),
        Alert(
            "DeliveryIsLate",
            "histogram_quantile(0.99, sum by (le) (rate(sht_gateway_fanout_lag_seconds_bucket[5m]))) > 0.25", "5m",
            "warning", "Entries are delivered {{ $value | humanizeDuration }} late (p99)",
            "Start more gateways; compare the clocks of Redis and the gateways.",
        ),
        Alert(
            "CancelsAreSlow",
            "histogram_quantile(0.99, sum by (le) (rate(sht_gateway_cancel_seconds_bucket[5m]))) > 0.1", "5m", "warning",
            "Cancels take {{ $value | humanizeDuration }} in Redis (p99)", "Redis is slow: `redis-cli --latency`, SLOWLOG.",
        ),
        Alert(
            "SendsAreRefused", "sum by (reason) (rate(sht_gateway_sends_refused_total[5m])) > 0", "5m", "warning",
            "Sends are refused: {{ $labels.reason }}", "`queue_too_long`: more workers; `gateway_late`: more gateways.",
        ),
        Alert(
            "ReadersAreDropped", "sum(rate(sht_gateway_slow_readers_total[5m])) > 0.1", "10m", "warning",
            "Connections are dropped because their clients read too slowly", "Look for a client that blocks, or a slow network.",
        ),
        Alert(
            "NoGateway", "absent(sht_gateway_connections)", "2m", "critical", "No gateway reports metrics",
            "Gateways are down, or Prometheus may not read /metrics.",
        ),
        Alert(
            "NoWorker", "absent(sht_worker_turns_running)", "2m", "critical", "No worker reports metrics",
            "Workers are down, or run without metrics_port.",
        ),
    ]  # fmt: skip


def rules() -> dict[str, Any]:
    """The rules as Prometheus loads them."""
    return {
        "groups": [
            {
                "name": "selfhost-transport",
                "rules": [
                    {
                        "alert": one.name,
                        "expr": one.expression,
                        "for": one.lasting,
                        "labels": {"severity": one.severity},
                        "annotations": {"summary": one.summary, "description": one.remedy},
                    }
                    for one in alerts()
                ],
            }
        ]
    }


def names_in(expression: str) -> set[str]:
    """Metrics that a query names."""
    return set(re.findall(r"\bsht_\w+", expression))


def files() -> dict[Path, str]:
    """What is written, by path."""
    head = "# Written by scripts/write_dashboards.py: change it there, or a copy.\n"
    return {
        DASHBOARD: json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n",
        ALERTS: head + yaml.safe_dump(rules(), sort_keys=False, allow_unicode=True, width=1000),
    }


def main() -> None:
    """Write the files."""
    known = {name for families in sections().values() for family in families for name in family.samples}
    for alert in alerts():
        if unknown := names_in(alert.expression) - known:
            raise SystemExit(f"{alert.name} names metrics that do not exist: {sorted(unknown)}")
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
