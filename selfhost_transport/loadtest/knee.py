"""The search for the most turns inside a latency budget, where single runs lie: each verdict is that of several runs."""

from __future__ import annotations

from collections import Counter

from selfhost_transport.loadtest.result import Knee

# The search ends when the knee is known to a tenth.
_PRECISION = 1.1
# A load is inside, or outside, once so many runs say so more often than the contrary: one outlier decides nothing.
_LEAD = 2
_FIRST_LEAD = 1
_MOST_RUNS = 5


class KneeSearch:
    """Doubles the load until it is outside, then halves the bracket, and repeats what decides.

    While doubling, one run inside is enough to go on: loads above it will tell. A run outside is repeated until two more runs
    were outside than inside, or the reverse. Both ends of the last bracket are decided that way.
    """

    def __init__(self, first: int, most: int) -> None:
        self._first = min(first, most)
        self._most = most
        self._inside: Counter[int] = Counter()
        self._tried: Counter[int] = Counter()

    def note(self, turns: int, passed: bool) -> None:
        """A run with this load was inside the budget, or not."""
        self._tried[turns] += 1
        self._inside[turns] += passed

    def next_turns(self) -> int:
        """The load to run next; 0: the knee is found."""
        if not self._tried:
            return self._first
        undecided = [turns for turns in self._tried if self._verdict(turns, _FIRST_LEAD) is None]
        if undecided:
            return undecided[0]
        # A low load that failed while a higher one was inside was an outlier of the machine: the higher one counts.
        low, high = self._bracket()
        ended = self._is_narrow(low, high) if high else low >= self._most
        if ended and low and self._verdict(low, _LEAD) is None:
            return low
        if ended:
            return 0
        return (low + high) // 2 if high else min(low * 2, self._most)

    def knee(self) -> Knee:
        """What was found so far."""
        low, high = self._bracket()
        return Knee(low, self._inside[low], self._tried[low], high, self._inside[high], self._tried[high])

    def _bracket(self) -> tuple[int, int]:
        """The highest load inside, and the lowest above it that is not; 0 for one that there is not."""
        low = max((turns for turns in self._tried if self._is_inside(turns)), default=0)
        high = min((turns for turns in self._tried if turns > low and not self._is_inside(turns)), default=0)
        return low, high

    def _is_inside(self, turns: int) -> bool:
        return 2 * self._inside[turns] > self._tried[turns]

    def _verdict(self, turns: int, lead_inside: int) -> bool | None:
        """Inside or not, None: another run is needed."""
        inside, tried = self._inside[turns], self._tried[turns]
        lead = 2 * inside - tried
        if lead >= (lead_inside if inside == tried else _LEAD):
            return True
        if -lead >= _LEAD:
            return False
        return lead > 0 if tried >= _MOST_RUNS else None

    @staticmethod
    def _is_narrow(low: int, high: int) -> bool:
        return high - low <= 1 or (low > 0 and high / low <= _PRECISION)
