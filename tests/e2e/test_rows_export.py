"""Rows HYD-1 and HYD-7: exporters that are killed, as processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from selfhost_transport import ClientTransport
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.e2e.conftest import Build
from tests.e2e.stage import PATIENCE_S, Stage, script, turn_id
from tests.processes import Proc, wait_until
from tests.promptness import within
from tests.worker.session import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKENS = 5


def lines(file: Path) -> list[dict[str, Any]]:
    """What is in the file, without lines that a crash has cut."""
    found = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in found if line.endswith("}")]


async def sent(client: ClientTransport, count: int) -> list[str]:
    """Turns that ran to their end."""
    turns = [await client.view.send(script(TOKENS, 0)) for _ in range(count)]
    for turn in turns:
        await turn.ended
    return [turn_id(turn) for turn in turns]


async def ready(proc: Proc) -> Proc:
    async with within(PATIENCE_S):
        await proc.ready
    return proc


async def test_hyd_1_killed_between_hook_and_ack_it_is_called_again_with_the_same_ids(
    stage: Stage, tmp_path: Path
) -> None:
    file = tmp_path / "turns.jsonl"
    exporting = ("-m", "tests.e2e.exporting", stage.stack.redis_url, str(file))
    killed = await ready(await stage.stack.run(sys.executable, *exporting, "60"))
    async with stage.connect(stage.session()) as client:
        (turn,) = await sent(client, 1)
        await wait_until(lambda: len(lines(file)) == 1, PATIENCE_S, "the hook")
        killed.kill()
        await killed.wait()
        await ready(await stage.stack.run(sys.executable, *exporting, "0"))
        await wait_until(lambda: len(lines(file)) == 2, PATIENCE_S, "the second call")
        (later,) = await sent(client, 1)
        await wait_until(lambda: len(lines(file)) == 3, PATIENCE_S, "the next turn")
    first, again, last = lines(file)
    assert first == again and first["turnId"] == turn and last["turnId"] == later
    said = [part["text"] for part in again["messages"][1]["message"]["parts"] if part["type"] == "text"]
    assert said == [numbered(TOKENS)]


async def test_hyd_7_a_killed_exporter_misses_no_turn(build: Build, tmp_path: Path) -> None:
    stage = await build(gateways=1)
    file = tmp_path / "turns.jsonl"
    shared = ("--redis", stage.stack.redis_url, "--to", str(file), "--lease", "0.5")
    exporter = await stage.stack.started("export", *shared)
    async with stage.connect(stage.session()) as client:
        turns = await sent(client, 5)
        await wait_until(lambda: lines(file), PATIENCE_S, "the first export")
        exporter.kill()
        await exporter.wait()
        with file.open("a") as cut:
            cut.write('{"turnId": "cut by a cr')
        turns += await sent(client, 10)
    exporter = await stage.stack.started("export", *shared)
    await wait_until(
        lambda: set(turns) <= {line["turnId"] for line in lines(file)}, PATIENCE_S, "every turn in the file"
    )
    exporter.terminate()
    assert await exporter.wait() == 0


async def test_hyd_7_an_exporter_outlives_redis(
    build: Build, own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    stage = await build(own_redis.url, gateways=1)
    file = tmp_path / "turns.jsonl"
    await stage.stack.started("export", "--redis", own_redis.url, "--to", str(file))
    async with stage.connect(stage.session()) as client:
        turns = await sent(client, 3)
        own_redis.stop()
        own_redis.start()
        turns += await sent(client, 3)
        await wait_until(
            lambda: set(turns) <= {line["turnId"] for line in lines(file)},
            PATIENCE_S,
            "every turn in the file",
        )
    # One whose export Redis did not hear of is there twice; the order holds all the same.
    assert list(dict.fromkeys(line["turnId"] for line in lines(file))) == turns
