"""A real Prometheus scrapes a gateway and a worker under load: every query of the dashboard and every alert is answered."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx
import pytest
import pytest_asyncio
import yaml

from scripts import write_dashboards as written
from scripts.check_dashboards import Prometheus, panel_answers, rule_answers
from tests.machine import free_port
from tests.processes import Proc, Stack, wait_until

PROGRAM = shutil.which("prometheus")
LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
needs_prometheus = pytest.mark.skipif(
    PROGRAM is None and not LONG, reason="no prometheus on the PATH (Debian: apt-get install prometheus)"
)
CONFIG = """
[[keys]]
name = "app.key"
secret = "secret"

[[keys]]
name = "app.prometheus"
secret = "figures"
capability = { "*" = ["stats"] }

[[namespaces]]
id = "chat"
agent = "assistant"
"""
# Of these nothing has happened in the run below.
QUIET: Final = {"sht_gateway_sends_refused", "sht_gateway_pushes", "sht_worker_model_tokens"}


def _scraping(gateway: Proc, worker: str) -> str:
    targets = {"gateway": gateway.url, "worker": worker}
    jobs = [
        {
            "job_name": name,
            "static_configs": [{"targets": [url.removeprefix("http://").partition("/")[0]]}],
            "basic_auth": {"username": "app.prometheus", "password": "figures"},
        }
        for name, url in targets.items()
    ]
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(written.ALERTS)],
            "scrape_configs": jobs,
        }
    )


async def _work(http: httpx.AsyncClient, session: str) -> None:
    """Turns that end in each way."""
    turns = f"/v1/sessions/{session}/turns"
    for text in (
        "script: tokens=20 rate=200",
        "script: tokens=5 rate=0 fail_at=2",
        "script: tokens=400 rate=50",
    ):
        sent = await http.post(turns, json={"text": text, "clientId": "ann"})
        assert sent.status_code == 202, sent.text
        turn = sent.json()["turnId"]
        if "400" in text:
            await http.post(f"/v1/sessions/{session}/cancel", json={"turnId": turn})

        async def ended(turn: str = turn) -> bool:
            found = (await http.get(f"{turns}/{turn}")).json()
            return found["status"] not in ("pending", "queued", "active", "cancelling")

        await wait_until(ended, 15)


@pytest_asyncio.fixture
async def running(stack: Stack, tmp_path: Path) -> AsyncIterator[tuple[Prometheus, Proc]]:
    """A Prometheus that scrapes a gateway and a worker; and the worker."""
    if PROGRAM is None:
        pytest.fail("the long form needs prometheus on the PATH")
    gateway = await stack.gateway(config=CONFIG)
    worker = await stack.worker("--metrics-port", "0", config=CONFIG)
    found = await wait_until(lambda: re.findall(r"metrics (http\S+)", worker.log))
    (tmp_path / "prometheus.yml").write_text(_scraping(gateway, found[0]))
    port = free_port()
    await stack.run(
        PROGRAM, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )  # fmt: skip
    prometheus = Prometheus(f"http://127.0.0.1:{port}")

    def scrapes() -> bool:
        try:
            return prometheus.targets() == {"gateway": "up", "worker": "up"}
        except (httpx.HTTPError, ValueError):
            # It answers in plain text that it is not ready.
            return False

    async with httpx.AsyncClient(base_url=gateway.url, auth=("app.key", "secret"), timeout=20) as http:
        await wait_until(scrapes, 30)
        # Three rounds, so that several scrapes differ; one reader, to whom something is delivered.
        async with http.stream("GET", "/v1/sessions/chat:0/events"):
            for _ in range(3):
                await asyncio.gather(*(_work(http, f"chat:{number}") for number in range(4)))
    yield prometheus, worker
    prometheus.close()


@needs_prometheus
async def test_every_query_and_every_rule_is_answered(running: tuple[Prometheus, Proc]) -> None:
    prometheus, worker = running
    assert prometheus.jobs() == ["gateway", "worker"]

    def empty() -> set[str]:
        answers = panel_answers(prometheus)
        assert [answer for answer in answers if answer.error] == []
        return {name for answer in answers if not answer.found for name in _families(answer.query)}

    await wait_until(lambda: empty() <= QUIET, 15, f"results for all but {QUIET}")
    assert len(panel_answers(prometheus)) >= 30

    def evaluated() -> bool:
        return all(answer.error != "unknown" for answer in rule_answers(prometheus))

    await wait_until(evaluated, 10)
    assert [answer for answer in rule_answers(prometheus) if answer.error] == []
    assert prometheus.rules()["NoWorker"]["state"] == "inactive"
    # A query of a name that is not there has no result: one says something.
    assert prometheus.query("none", "sht_no_such_metric").found == 0
    assert "parse error" in prometheus.query("none", "sum(").error
    worker.kill()
    await wait_until(
        lambda: prometheus.rules()["NoWorker"]["state"] == "pending", 20, "a lost worker is noticed"
    )


def _families(query: str) -> set[str]:
    return {re.sub(r"_(total|bucket)$", "", name) for name in written.names_in(query)}


@needs_prometheus
def test_promtool_accepts_the_rules_and_the_configuration_of_compose() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.fail("promtool comes with prometheus")
    for arguments in (
        ("check", "rules", str(written.ALERTS)),
        ("check", "config", "--syntax-only", str(written.DEPLOY / "prometheus" / "prometheus.yml")),
    ):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "12 rules found"
        in subprocess.run(
            [promtool, "check", "rules", str(written.ALERTS)], capture_output=True, text=True, check=False
        ).stdout
    )
