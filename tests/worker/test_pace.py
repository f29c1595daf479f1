"""How many turns run at once while the event loop is late."""

from __future__ import annotations

from agent_worker.runtime.pace import LATE_S, VERY_LATE_S, TurnPace


class Late:
    """An event loop as late as one likes, and a clock."""

    def __init__(self) -> None:
        self.lag, self.now = 0.0, 100.0
        self.pace = TurnPace(lambda: self.lag, lambda: self.now)

    def room(self, running: int, after_s: float = 0.0) -> int:
        self.now += after_s
        return self.pace.room(running, 200)


def test_a_loop_on_time_has_all_places() -> None:
    assert Late().room(50) == 150
    assert Late().room(300) == 0


def test_while_late_hardly_more_than_a_turn_is_taken_for_each_that_ends() -> None:
    late = Late()
    late.lag = LATE_S * 2
    assert late.room(50) == 0
    assert late.room(48) == 2
    assert late.room(50, 0.11) == 2
    assert late.room(52) == 0


def test_turns_that_do_not_end_keep_no_others_away_from_a_late_worker_forever() -> None:
    late = Late()
    late.lag = LATE_S * 2
    running = 10
    for _ in range(300):
        running += late.room(running, 0.11)
    assert running == 200


def test_one_that_is_very_late_runs_ever_fewer_but_some() -> None:
    late = Late()
    late.lag = VERY_LATE_S * 2
    late.room(100)
    assert late.room(100, 0.5) == 0
    assert late.room(80, 1.1) == 10
    for _ in range(100):
        late.room(0, 1.1)
    assert late.room(0) == 4


def test_what_was_taken_away_comes_back_step_by_step() -> None:
    late = Late()
    late.lag = LATE_S * 2
    late.room(10)
    late.lag = 0.0
    rooms = [late.room(10, 0.11) for _ in range(60)]
    assert rooms == sorted(rooms)
    assert 0 < rooms[0] < 5
    assert rooms[-1] == 190
    assert late.pace.limit is None


def test_a_worker_with_nothing_to_do_takes_a_few_however_late_it_is() -> None:
    late = Late()
    late.lag = 5.0
    assert late.room(0) == 4
