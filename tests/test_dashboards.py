"""The dashboard and the alerts of deploy/: current, parsed as PromQL, answered by what running processes report."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

from scripts import write_dashboards as written
from tests.gateway.raw import CONFIG
from tests.processes import Stack, wait_until

_LABELS_OF_PROMETHEUS = {"job", "instance", "le"}


def _expressions() -> list[str]:
    panels = [
        target["expr"] for panel in written.dashboard()["panels"] for target in panel.get("targets", ())
    ]
    return [*panels, *(alert.expression for alert in written.alerts())]


def _plain(expression: str) -> str:
    return expression.replace("$__rate_interval", "5m").replace("$job", ".*")


def _parts(expression: str) -> tuple[set[str], set[str]]:
    """Names of metrics, and of the labels that a query groups by or selects."""
    labels = {
        name.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for name in group.split(",")
    }
    labels |= set(re.findall(r"(\w+)=~?\"", expression))
    return written.names_in(expression), labels - _LABELS_OF_PROMETHEUS


@pytest.mark.parametrize("path", list(written.files()), ids=lambda path: path.name)
def test_the_files_are_current(path: Path) -> None:
    assert path.read_text() == written.files()[path], "run python -m scripts.write_dashboards"


def test_every_metric_has_a_panel() -> None:
    shown = {name for expression in _expressions() for name in written.names_in(expression)}
    for families in written.sections().values():
        for family in families:
            assert shown & set(family.samples), family.name


@pytest.mark.parametrize("expression", _expressions())
def test_prometheus_would_accept_every_query(expression: str) -> None:
    promql_parser.parse(_plain(expression))
    with pytest.raises(ValueError, match=r"."):
        promql_parser.parse(_plain(expression) + ")")


async def test_running_processes_report_what_the_queries_name(stack: Stack) -> None:
    gateway = await stack.gateway(config=CONFIG)
    worker = await stack.worker("--metrics-port", "0", config=CONFIG)
    await wait_until(lambda: "metrics http" in worker.log)
    found = re.search(r"metrics (http\S+)", worker.log)
    assert found is not None
    async with httpx.AsyncClient(auth=("app.key", "secret"), base_url=gateway.url) as http:
        turns = "/v1/sessions/bound:dash/turns"
        turn = (await http.post(turns, json={"text": "script: tokens=3 rate=0", "clientId": "ann"})).json()[
            "turnId"
        ]

        async def ended() -> bool:
            return bool((await http.get(f"{turns}/{turn}")).json()["status"] == "completed")

        await wait_until(ended)
        texts = [(await http.get("/metrics")).text, (await http.get(found[1])).text]
    reported: dict[str, set[str]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                reported.setdefault(sample.name, set()).update(sample.labels)
            if not family.samples:
                reported.setdefault(f"{family.name}_total", set())
    labels_of = {
        name: set(family.labels)
        for families in written.sections().values()
        for family in families
        for name in family.samples
    }
    for expression in _expressions():
        names, labels = _parts(expression)
        assert names and names <= set(reported), expression
        assert all(labels <= labels_of[name] for name in names), expression
    for name in ("sht_worker_queue_wait_seconds_count", "sht_worker_first_output_seconds_count"):
        assert "agent" in reported[name]
