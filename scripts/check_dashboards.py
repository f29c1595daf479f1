"""Asks a running Prometheus everything that the dashboard and the alert rules ask: `python -m scripts.check_dashboards URL`.

Says for each query how many results it has, and fails where one is refused or a rule cannot be evaluated. A query without
a result is shown: its metric is one that nothing has happened to yet, or its process is not scraped.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any, Final

import httpx

from scripts.write_dashboards import DASHBOARD, alerts

# What Grafana fills in for itself. A window in which each process was scraped several times.
_WINDOW: Final = "1m"


@dataclass(frozen=True)
class Answer:
    """What Prometheus says to a query. `error`: '' where it was evaluated."""

    where: str
    query: str
    found: int
    error: str = ""


class Prometheus:
    """The HTTP API of one."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def query(self, where: str, query: str, window: str = _WINDOW) -> Answer:
        """Evaluate a query as a panel does."""
        asked = query.replace("$__rate_interval", window).replace("$job", ".*")
        answer = self._http.get("/api/v1/query", params={"query": asked}).json()
        if answer["status"] != "success":
            return Answer(where, query, 0, answer["error"])
        return Answer(where, query, len(answer["data"]["result"]))

    def jobs(self) -> list[str]:
        """The values of the dashboard's variable."""
        params = {"match[]": '{__name__=~"sht_.+"}'}
        found: list[str] = self._http.get("/api/v1/label/job/values", params=params).json()["data"]
        return found

    def rules(self) -> dict[str, dict[str, Any]]:
        """The alert rules that are loaded, by name."""
        groups = self._http.get("/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def targets(self) -> dict[str, str]:
        """How each job's scrapes go: `up` or why not."""
        active = self._http.get("/api/v1/targets").json()["data"]["activeTargets"]
        return {
            one["labels"]["job"]: one["health"] if one["health"] == "up" else one["lastError"]
            for one in active
        }

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def panel_answers(prometheus: Prometheus, window: str = _WINDOW) -> list[Answer]:
    """Every query of every panel of the dashboard as it is shipped."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [
        prometheus.query(panel["title"], target["expr"], window)
        for panel in panels
        for target in panel.get("targets", ())
    ]


def rule_answers(prometheus: Prometheus) -> list[Answer]:
    """Every alert rule: loaded, and evaluated without an error."""
    loaded = prometheus.rules()
    found = []
    for alert in alerts():
        rule = loaded.get(alert.name)
        error = (
            "not loaded"
            if rule is None
            else ""
            if rule["health"] == "ok"
            else rule.get("lastError", rule["health"])
        )
        found.append(Answer(alert.name, alert.expression, 0 if rule is None else len(rule["alerts"]), error))
    return found


def main() -> None:
    """Print the answers; exit status 1 where one is an error."""
    prometheus = Prometheus(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9090")
    try:
        panels, rules = panel_answers(prometheus), rule_answers(prometheus)
    finally:
        prometheus.close()
    for answer in panels:
        print(f"{answer.error or answer.found:>6}  {answer.where}: {answer.query}")
    for answer in rules:
        print(
            f"{answer.error or 'ok':>6}  {answer.where}{' (firing or pending)' if answer.found else ''}: {answer.query}"
        )
    failed = [answer for answer in (*panels, *rules) if answer.error]
    empty = sum(not answer.found for answer in panels)
    print(f"{len(panels)} queries, {empty} without a result; {len(rules)} rules; {len(failed)} refused")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
