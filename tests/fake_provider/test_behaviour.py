"""Which request gets which answer."""

from __future__ import annotations

from collections import Counter
from random import Random
from statistics import median

import pytest

from agent_worker.fake_provider.behaviour import Behaviour, Fault
from selfhost_transport.distribution import Distribution
from selfhost_transport.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "middle"),
    [
        ("0.3", 0.3),
        ("uniform:1,3", 2.0),
        ("normal:5,1", 5.0),
        ("lognormal:0.3,0.5", 0.3),
        ("exponential:1", 0.69),
    ],
)
def test_a_distribution_has_the_middle_it_was_given(text: str, middle: float) -> None:
    rng, found = Random(1), Distribution.parse(text)
    assert median(found.draw(rng) for _ in range(2000)) == pytest.approx(middle, rel=0.1)


@pytest.mark.parametrize(
    "text", ["", "a", "uniform:1", "pareto:1", "-1", "normal:1,nan", "1,2", "constant:inf"]
)
def test_what_is_no_distribution_is_explained(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no distribution"):
        Distribution.parse(text)


def test_the_same_request_gets_the_same_answer_in_any_order() -> None:
    behaviour = Behaviour.parse(
        "exponential:1", "normal:50,10", "uniform:10,500", ["failed=30%", "dropped=30"], seed=7
    )
    wanted = [(f"digest-{number % 50}", number // 50) for number in range(200)]
    once = {one: behaviour.answer("hi", *one, None) for one in wanted}
    again = {one: behaviour.answer("hi", *one, None) for one in reversed(wanted)}
    assert once == again
    assert once != {one: Behaviour(seed=8).answer("hi", *one, None) for one in wanted}
    # A repeated request, as a client's retry is, may have better luck.
    faults = {digest: {once[digest, repeat].fault for repeat in range(4)} for digest, _ in wanted}
    assert any(len(found) > 1 for found in faults.values())


def test_faults_come_as_often_as_asked_for() -> None:
    behaviour = Behaviour.parse("0", "0", "100", ["rate_limit=10", "silent=20%"], seed=1)
    drawn = [behaviour.answer("hi", str(number), 0, None) for number in range(3000)]
    counts = Counter(one.fault for one in drawn)
    assert counts[Fault.RATE_LIMIT] == pytest.approx(300, rel=0.2)
    assert counts[Fault.SILENT] == pytest.approx(600, rel=0.2)
    assert counts.total() == counts[Fault.RATE_LIMIT] + counts[Fault.SILENT] + counts[None]
    assert {one.at for one in drawn} >= set(range(1, 99))


@pytest.mark.parametrize("fault", ["failed", "failed=x", "typo=3", "failed=-1", "failed=101"])
def test_what_is_no_fault_is_explained(fault: str) -> None:
    with pytest.raises(InvalidArgument):
        Behaviour.parse("0", "0", "1", [fault], 0)


def test_the_callers_limit_and_a_script_decide_the_length() -> None:
    behaviour = Behaviour.parse("1", "50", "200", [], 0)
    assert (behaviour.answer("hi", "a", 0, 20).tokens, behaviour.answer("hi", "a", 0, 20).cut) == (20, True)
    scripted = behaviour.answer("script: tokens=7 rate=3", "a", 0, None)
    assert (scripted.tokens, scripted.rate, scripted.first_token_s, scripted.fault) == (7, 3.0, 0.0, None)
    both = "script: tokens=7 rate=3\n\nscript: tokens=8 rate=3"
    assert behaviour.answer(both, "a", 0, None).tokens == 8
    hanging = behaviour.answer("script: tokens=7 rate=3 hang_at=4", "a", 0, None)
    assert (hanging.fault, hanging.at) == (Fault.SILENT, 4)
    assert behaviour.answer("script: nonsense", "a", 0, None).tokens == 200
