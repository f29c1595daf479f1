"""The command against real processes: what it prints, writes, and its exit status."""

from __future__ import annotations

from pathlib import Path

from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.result import RunResult
from tests.loadtest.running import run
from tests.processes import Stack

SMALL = (
    "--quiet",
    "--turns",
    "6",
    "--tokens",
    "25",
    "--duration",
    "1.5",
    "--warmup",
    "0.5",
    "--patience",
    "15",
)
CONFIG = """
[[keys]]
name = "app.key"
secret = "secret"

[[namespaces]]
id = "load"
agent = "assistant"
"""
KEY = ("--key", "app.key:secret", "--namespace", "load")


async def test_ops_15_one_command_starts_measures_verifies_and_reports(stack: Stack, tmp_path: Path) -> None:
    json, html = tmp_path / "a.json", tmp_path / "a.html"
    proc = await run(stack, "--local", *SMALL, "--viewers", "2", "--json", str(json), "--html", str(html))
    assert proc.returncode == 0, proc.log
    assert "passed: no token lost" in proc.log
    result = RunResult.load_file(json)
    assert result.tokens > 0
    assert result.outcomes["complete"] == result.counters["turns_sent"]
    for metric in (Metric.FIRST_TOKEN, Metric.TOKEN, Metric.DELIVERY, Metric.GAP, Metric.QUEUE_WAIT):
        assert result.summary(metric).count > 0, metric
    assert {"gateway", "worker", "redis", "generator"} <= set(result.usage)
    # OPS-16: what a thousand turns cost, in bytes and in CPU.
    assert result.redis_bytes_per_turn > 0
    assert result.cpu_s_per_1000_turns("gateway") > 0
    assert "CPU seconds per 1,000 turns" in proc.log
    assert html.read_text().startswith("<!doctype html>")


async def test_a_missed_threshold_fails_the_run(stack: Stack) -> None:
    proc = await run(stack, "--local", *SMALL, "--max-p99-ms", "0.001")
    assert proc.returncode == 1
    assert "missed token p99 ms" in proc.log


async def test_a_running_deployment_and_several_processes(stack: Stack, tmp_path: Path) -> None:
    gateways = [await stack.gateway(config=CONFIG) for _ in range(2)]
    await stack.worker(config=CONFIG)
    urls = [option for gateway in gateways for option in ("--url", gateway.url)]
    json = tmp_path / "b.json"
    proc = await run(
        stack, "cancel", *urls, *KEY, *SMALL, "--duration", "4", "--processes", "2", "--json", str(json)
    )
    assert proc.returncode == 0, proc.log
    result = RunResult.load_file(json)
    assert result.outcomes == {"cancelled": result.counters["turns_sent"]}
    assert result.summary(Metric.CANCEL_TERMINAL).count > 0
    assert set(result.usage) == {"generator"}


async def test_people_who_interrupt(stack: Stack, tmp_path: Path) -> None:
    gateway = await stack.gateway(config=CONFIG)
    await stack.worker(config=CONFIG)
    json = tmp_path / "c.json"
    proc = await run(
        stack,
        "interrupt",
        "--url",
        gateway.url,
        *KEY,
        *SMALL,
        "--tokens",
        "100",
        "--duration",
        "5",
        "--json",
        str(json),
    )
    assert proc.returncode == 0, proc.log
    result = RunResult.load_file(json)
    assert result.outcomes["cancelled"] > 0
    assert result.counters["lost_sockets"] > 0


async def test_rec_14_a_gateway_is_killed_under_its_clients(stack: Stack, tmp_path: Path) -> None:
    json = tmp_path / "d.json"
    proc = await run(
        stack,
        "herd",
        "--local",
        "--gateways",
        "2",
        *SMALL,
        "--turns",
        "20",
        "--duration",
        "3",
        "--json",
        str(json),
    )
    assert proc.returncode == 0, proc.log
    result = RunResult.load_file(json)
    assert result.counters["lost_sockets"] == 10
    assert result.summary(Metric.RECONNECT).count == 10
    assert set(result.outcomes) == {"complete"}


async def test_what_is_missing_is_one_line_before_the_run(stack: Stack) -> None:
    gateway = await stack.gateway(config=CONFIG)
    for options, reason in (
        (("--key", "app.key:wrong", "--namespace", "load"), "refuses the credentials"),
        (("--key", "other.key:secret", "--namespace", "load"), "refuses the credentials"),
        (("--key", "app.key:secret", "--namespace", "none"), "no agent answers in the namespace 'none'"),
        (KEY, "no worker serves the agent 'assistant'"),
    ):
        proc = await run(stack, "--url", gateway.url, *options, *SMALL)
        assert proc.returncode == 1
        (line,) = [line for line in proc.log.splitlines() if line.strip()]
        assert reason in line
    elsewhere = await run(stack, "--url", f"{gateway.url}/elsewhere", *KEY, *SMALL)
    assert elsewhere.returncode == 1 and "is no gateway of this service (status 404" in elsewhere.log


async def test_what_may_cost_money_is_refused_before_anything_is_sent(stack: Stack, tmp_path: Path) -> None:
    module = tmp_path / "costly.py"
    module.write_text(
        "from agent_worker import Worker\n"
        "worker = Worker()\n"
        "@worker.agent('assistant')\n"
        "async def assistant(turn):\n"
        "    yield 'an answer'\n"
    )
    gateway = await stack.gateway(config=CONFIG)
    costly = await stack.worker("costly:worker", config=CONFIG, env={"PYTHONPATH": str(tmp_path)})
    anything = ("--any-text", *SMALL)
    refused = await run(stack, "--url", gateway.url, *KEY, *anything)
    assert refused.returncode == 1
    assert "may call a model that costs money" in refused.log
    meant = await run(stack, "--url", gateway.url, *KEY, *anything, "--yes")
    assert meant.returncode == 0, meant.log
    # One worker among several that says nothing of its models is enough.
    await stack.worker(config=CONFIG)
    assert (await run(stack, "--url", gateway.url, *KEY, *anything)).returncode == 1
    await costly.end()
    local = await run(stack, "--local", "--agent", "costly:worker", *anything)
    assert local.returncode == 1
    assert "give --fake-provider" in local.log


async def test_wrong_options_are_explained(stack: Stack) -> None:
    for options, reason in (
        (("herd", "--local"), "needs --local and --gateways 2"),
        (("--local", "--turns", "0"), "are positive"),
        (("nonsense", "--local"), "is not one of steady, ramp"),
        ((), "--local to start a deployment"),
        (("--url", "ws://127.0.0.1:9", "--quiet"), "cannot connect to 127.0.0.1:9"),
        (("--url", "ws://127.0.0.1:9", "--agent", "a:b"), "parts of the deployment that --local starts"),
        (("--local", "--any-text", "--think", "long"), "is no distribution"),
        (("noisy", "--local", "--any-text"), "needs the scripted model"),
        (("--local", "--json", "/nowhere/a.json"), "there is no folder /nowhere"),
    ):
        proc = await run(stack, *options)
        assert proc.returncode == 1
        assert reason in proc.log
        assert "Traceback" not in proc.log
