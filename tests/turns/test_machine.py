"""TRN-4, TRN-5, TRN-7: the turn state machine over random histories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.errors import InvalidArgument, TurnEnded
from selfhost_transport.turns.lifecycle import RunReason
from selfhost_transport.turns.status import STATUS_OF_REASON, TurnStatus
from tests.turn_transitions import TRANSITIONS, TurnEvent, advance, can

OPEN = [status for status in TurnStatus if not status.is_terminal]


@given(st.lists(st.sampled_from(TurnEvent), max_size=40))
def test_trn_4_and_5_every_history_moves_legally_and_has_at_most_one_terminal(
    events: list[TurnEvent],
) -> None:
    status, terminals, cancel_requested = TurnStatus.PENDING, 0, False
    for event in events:
        if not can(status, event):
            with pytest.raises(TurnEnded if status.is_terminal else InvalidArgument):
                advance(status, event)
            continue
        status = advance(status, event)
        cancel_requested |= event is TurnEvent.REQUEST_CANCEL
        terminals += status.is_terminal
        assert not (cancel_requested and status is TurnStatus.COMPLETED)
    assert terminals <= 1
    assert status is not TurnStatus.PENDING or all(not can(TurnStatus.PENDING, event) for event in events)


@pytest.mark.parametrize("event", TurnEvent)
@pytest.mark.parametrize("status", [status for status in TurnStatus if status.is_terminal])
def test_trn_7_an_ended_turn_never_moves(status: TurnStatus, event: TurnEvent) -> None:
    with pytest.raises(TurnEnded):
        advance(status, event)


@pytest.mark.parametrize("status", OPEN)
def test_trn_8_every_open_state_can_be_cancelled_and_can_fail(status: TurnStatus) -> None:
    assert advance(status, TurnEvent.CANCEL) is TurnStatus.CANCELLED
    assert advance(status, TurnEvent.FAIL) is TurnStatus.FAILED


def test_every_status_is_reachable() -> None:
    reached, frontier = {TurnStatus.PENDING}, [TurnStatus.PENDING]
    while frontier:
        for following in TRANSITIONS[frontier.pop()].values():
            if following not in reached:
                reached.add(following)
                frontier.append(following)
    assert reached == set(TurnStatus)


def test_trn_6_each_reason_is_a_terminal_status() -> None:
    assert set(STATUS_OF_REASON) == set(RunReason)
    assert {status for status in TurnStatus if status.is_terminal} == set(STATUS_OF_REASON.values())
