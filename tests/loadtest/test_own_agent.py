"""Load on one's own agent: the openai adapter against the fake provider, the whole way."""

from __future__ import annotations

import os
from pathlib import Path

from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.result import RunResult
from tests.loadtest.running import run
from tests.processes import Stack

OWN = ("--local", "--quiet", "--agent", "tests.loadtest.my_agents:worker", "--fake-provider")
LONG = bool(os.environ.get("SELFHOST_TRANSPORT_LONG"))
TURNS = 500 if LONG else 8
# Begun slowly: each turn costs the provider's HTTP client milliseconds.
LOAD = (
    ("--tokens", "150", "--rate", "10", "--warmup", "12", "--duration", "15")
    if LONG
    else ("--tokens", "40", "--rate", "20", "--warmup", "0.5", "--duration", "2")
)


async def test_every_token_of_a_real_adapter_is_verified(stack: Stack, tmp_path: Path) -> None:
    """Numbered tokens of the provider, through its library and the adapter: at once as many turns as asked for."""
    json = tmp_path / "a.json"
    proc = await run(stack, *OWN, "--turns", str(TURNS), *LOAD, "--patience", "60", "--json", str(json))
    assert proc.returncode == 0, proc.log
    result = RunResult.load_file(json)
    assert set(result.outcomes) == {"complete"}
    assert result.outcomes["complete"] == result.counters["turns_sent"] >= TURNS
    assert "provider" in result.usage


async def test_people_who_stop_interrupt_and_reload(stack: Stack, tmp_path: Path) -> None:
    prompts, json, html = tmp_path / "prompts.txt", tmp_path / "a.json", tmp_path / "a.html"
    prompts.write_text("Hello\tAnd now?\nSomething else\n", encoding="utf-8")
    proc = await run(
        stack, *OWN, "--provider-options", "--tokens uniform:20,40 --rate 40 --first-token 0.1 --fault failed=15",
        "--prompts", str(prompts), "--people", "read=4,cancel=2,interrupt=2,reload=2", "--think", "uniform:0.1,0.3",
        "--viewers", "2", "--duration", "6", "--warmup", "1", "--patience", "60", "--max-errors", "70",
        "--price", "1,2", "--name", "a try", "--json", str(json), "--html", str(html),
    )  # fmt: skip
    assert proc.returncode == 0, proc.log
    result = RunResult.load_file(json)
    assert {"complete", "cancelled", "error"} <= set(result.outcomes)
    assert result.counters["sessions_compared"] >= 10
    assert result.counters["lost_sockets"] > 0
    for metric in (Metric.FIRST_TOKEN, Metric.TOTAL, Metric.TIME_PER_TOKEN, Metric.RELOAD, Metric.CANCEL_ACK):
        assert result.summary(metric).count > 0, metric
    # A token every 25 ms, by the provider's own count.
    assert 15 < result.summary(Metric.TIME_PER_TOKEN).p50 < 60
    assert sum(result.errors.values()) == result.outcomes["error"]
    assert any("the model provider failed" in said for said in result.errors)
    # A stop may come between the model's last word and the turn's.
    ended = result.outcomes["complete"]
    assert ended <= result.model_usage["turns"] <= ended + result.outcomes["cancelled"]
    assert 20 <= result.model_usage["output"] / result.model_usage["turns"] <= 40
    assert f"cost {result.cost:,.4f}" in proc.log
    page = html.read_text(encoding="utf-8")
    assert "Load test: a try" in page and "--prompts" in page
    compared = await run(stack, "--compare", str(json), str(json), "--html", str(html))
    assert compared.returncode == 0, compared.log
    assert html.read_text(encoding="utf-8").count("a try") >= 2


async def test_too_many_errors_fail_the_run(stack: Stack) -> None:
    proc = await run(
        stack, *OWN, "--provider-options", "--tokens 3 --fault overloaded=100", "--any-text", "--turns", "2",
        "--duration", "1.5", "--warmup", "0.5", "--arrivals", "4",
    )  # fmt: skip
    assert proc.returncode == 1
    assert "missed turns that failed, %: 100.0" in proc.log
    assert "the model provider is overloaded" in proc.log
