"""A deployment moves from one server to a Cluster and back, as docs/deployment.md says: its clients wait, and go on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from selfhost_transport import ClientTransport, Turn, TurnStatus
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.deployment import BUCKETS_OF_CLUSTER
from tests.documentation.blocks import block
from tests.e2e.stage import Stage, assert_exact, script, token_seen, turn_id
from tests.processes import Stack, wait_until
from tests.redis_io.clusters import clustered

COMMAND = str(Path(sys.executable).with_name("selfhost-transport"))
PREFIX = "moving"


@pytest.mark.timeout(240)
async def test_to_a_cluster_and_back(tmp_path: Path) -> None:
    """With a client that stays: no gap, no second start of what was sent, and the whole conversation at the new place."""
    folder = tmp_path / "first"
    folder.mkdir()
    with (
        EmbeddedRedis(tmp_path / "one") as one,
        EmbeddedRedis(tmp_path / "two") as two,
        clustered(tmp_path, timeout_ms=15_000) as cluster,
    ):
        await wait_until(cluster.replicate, 30, "a replica that knows its primary")
        await wait_until(cluster.ready, 30, "servers that know each other")
        stage = await Stage.make(one.url, PREFIX, folder, gateways=1)
        port, session = stage.gateways[0].port, stage.session()
        breaks: list[object] = []
        try:
            async with stage.connect(session, within=60.0) as client:
                client.on("discontinuity", breaks.append)
                turn = await client.view.send(script(40, 60))
                await turn.ended
                texts = [turn.text]
                for number, (source, target) in enumerate(((one.url, cluster.url), (cluster.url, two.url))):
                    waiting = await _stopped_with_a_turn_waiting(stage, client)
                    printed = await _migrate(stage.stack, source, target)
                    assert "migrated: " in printed and f"{BUCKETS_OF_CLUSTER} buckets" in printed, printed
                    await stage.close()
                    stage = await _started(target, tmp_path / f"stage-{number}", port)
                    await asyncio.wait_for(waiting.ended, 40)
                    assert waiting.status is TurnStatus.COMPLETED
                    assert_exact(waiting, 60)
                    texts.append(waiting.text)
                assert not breaks
                assert [
                    item.message.text for item in client.view.messages if item.message.role == "assistant"
                ] == texts
            async with stage.connect(session, "late") as late:
                while late.view.has_older:
                    await late.view.load_older(100)
                found = [item.message.text for item in late.view.messages if item.message.role == "assistant"]
                assert found == texts
                stopped = await late.view.send(script(1000, 60))
                await token_seen(stopped, 5)
                await late.cancel(turn_id=turn_id(stopped))
                await stopped.ended
                assert stopped.status is TurnStatus.CANCELLED
        finally:
            await stage.close()


async def _stopped_with_a_turn_waiting(stage: Stage, client: ClientTransport) -> Turn:
    """The worker first, so that a turn waits in the queue; then the gateway, both as a service manager does it."""
    for worker in stage.workers:
        worker.terminate()
        await worker.wait()
    turn = await client.view.send(script(60, 60))
    for gateway in stage.gateways:
        gateway.terminate()
        await gateway.wait()
    return turn


async def _started(url: str, folder: Path, port: int) -> Stage:
    folder.mkdir()
    stage = await Stage.make(url, PREFIX, folder, gateways=0, workers=1)
    await stage.add_gateway(port)
    return stage


async def _migrate(stack: Stack, source: str, target: str) -> str:
    """The command of the guide."""
    script = block("docs/deployment.md", "selfhost-transport migrate").text
    process = await stack.run(
        "sh", "-euc", script.replace("selfhost-transport", COMMAND), env={"FROM": source, "TO": target}
    )
    assert await process.wait(60) == 0, process.log
    return process.log
