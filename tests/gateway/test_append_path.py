"""The short way of appends gives each reader the very frames of the long one (P1, P10)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.background import Background
from gateway.fanout import append_path
from gateway.fanout.delivery import Variant
from gateway.fanout.feed import SessionFeed
from gateway.fanout.subscription import DeliveryState
from selfhost_transport import accelerator
from selfhost_transport.accelerator import plain
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.codec import Format
from tests.gateway.scenarios import SESSION, LongWay, Scenario, Side

STEPS = 400
SEEDS = range(4)


@pytest.fixture(params=[plain.append_frames, accelerator.append_frames], ids=["python", "chosen"])
def used(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many notifications took the short way, with a form of it."""
    counted: list[int] = []

    def count(*given: Any) -> accelerator.AppendFrames | None:
        made: accelerator.AppendFrames | None = request.param(*given)
        if made is not None:
            counted.append(len(made[2]))
        return made

    monkeypatch.setattr(append_path, "append_frames", count)
    return counted


@pytest.mark.parametrize("seed", SEEDS)
async def test_each_reader_gets_the_same_either_way(store: SessionStore, used: list[int], seed: int) -> None:
    source = random.Random(seed)
    tasks = Background("test")
    sides = [Side(store, tasks, SessionFeed), Side(store, tasks, LongWay)]
    scenario = Scenario(source, sides, with_whole=seed == 3)
    await scenario.play(STEPS, tasks)
    short, long = sides
    for one, other in zip(short.readers, long.readers, strict=True):
        assert one.frames == other.frames
        assert one.subscription.state is other.subscription.state
    assert short.feed.position == long.feed.position == scenario.last
    short.metrics.collect()
    long.metrics.collect()
    assert short.metrics.deliveries._value.get() == long.metrics.deliveries._value.get()
    assert seed == 3 or len(used) > STEPS / 4


async def test_a_full_socket_stalls_on_the_short_way(store: SessionStore, used: list[int]) -> None:
    tasks = Background("test")
    scenario = Scenario(random.Random(1), [Side(store, tasks, SessionFeed)])
    (side,) = scenario.sides
    side.join(Variant(Format.JSON, SESSION), None)
    scenario.create()
    for text in "abcd":
        scenario._append_one(scenario.messages[-1], text)
    assert used
    reader = side.readers[0]
    reader.congested = True
    scenario.append()
    assert reader.subscription.state is DeliveryState.STALE
    written = len(reader.frames)
    scenario.append()
    assert len(reader.frames) == written
    await tasks.close()
