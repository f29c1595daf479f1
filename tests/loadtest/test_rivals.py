"""The comparison with other systems: its schedule, its MQTT, and what it says when something is not installed."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.rivals import mqtt
from benchmarks.rivals.__main__ import app
from benchmarks.rivals.load import RivalLoad, token
from benchmarks.rivals.systems import SYSTEMS
from benchmarks.rivals.viewers import Recorder, Viewer


@given(
    payloads=st.lists(st.binary(max_size=300), max_size=5), cuts=st.lists(st.integers(0, 1500), max_size=8)
)
@settings(deadline=None)
def test_packets_are_found_however_they_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(mqtt.publish("s1", payload) for payload in payloads)
    places = sorted({cut % (len(stream) + 1) for cut in cuts})
    reader = mqtt.PacketReader()
    found: list[tuple[int, bytes]] = []
    for start, end in zip([0, *places], [*places, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert found == [(mqtt.PUBLISH, payload) for payload in payloads]


@given(turns=st.integers(1, 40), rate=st.sampled_from([5.0, 20.0, 50.0]))
@settings(deadline=None, max_examples=25)
def test_every_turn_has_its_tokens_in_order_and_at_its_rate(turns: int, rate: float) -> None:
    load = RivalLoad(turns, rate, warmup_s=1.0, seconds=1.0)
    by_turn: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
    last = 0.0
    for due, turn, number in load.schedule(1000.0):
        assert due >= last
        last = due
        by_turn[turn].append((due, number))
    assert sorted(by_turn) == list(range(turns))
    for tokens in by_turn.values():
        assert [number for _, number in tokens] == list(range(len(tokens)))
        for (before, _), (after, _) in pairwise(tokens):
            assert after - before == pytest.approx(1 / rate)
        # All run from the beginning of the window to its end.
        assert tokens[0][0] <= 1001.0
        assert tokens[-1][0] >= 1002.0 - 1 / rate


async def test_a_viewer_notices_what_is_missing() -> None:
    recorder = Recorder()
    recorder.active = True
    viewer = Viewer(0, recorder)
    for number in (0, 1, 3, 4, 4):
        viewer.on_message(token(number, 1.0))
    measured = recorder.measured()
    assert (measured.tokens, measured.out_of_order) == (5, 2)


def test_what_is_not_installed_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.rivals.systems.shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("benchmarks.figures.Results.save", lambda self: "nowhere")
    names = ",".join(system.name for system in SYSTEMS)
    run = CliRunner().invoke(app, ["--systems", names])
    assert run.exit_code == 1
    assert (
        "nchan is not measured, it is not installed: apt-get install nginx libnginx-mod-nchan" in run.output
    )
    assert "mosquitto is not measured, it is not installed: apt-get install mosquitto" in run.output
    assert "socket.io is not measured, it is not installed: install Node" in run.output
