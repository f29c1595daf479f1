"""How far Redis' clock is from ours, from the answers to our own sends."""

from __future__ import annotations

# A stamp is in whole milliseconds, rounded down.
_HALF_STAMP_S = 0.0005


class ClockOffset:
    """Estimates `their clock - our clock` in seconds, as NTP does: the exchange with the shortest round trip counts.

    On one machine there is one clock: `shared` keeps the offset at 0.
    """

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        # What to subtract from their stamps.
        self.offset_s = 0.0
        self._round_trip_s = float("inf")

    @property
    def uncertainty_s(self) -> float:
        """The estimate is off by at most this; 0 when the clock is shared, infinite before the first answer."""
        return 0.0 if self._shared else self._round_trip_s / 2

    def observe(self, sent: float, received: float, stamp_ms: int) -> None:
        """An exchange: when we sent, when we had the answer (seconds, our clock), and their stamp in between."""
        round_trip = received - sent
        if self._shared or round_trip >= self._round_trip_s:
            return
        self._round_trip_s = round_trip
        self.offset_s = stamp_ms / 1e3 + _HALF_STAMP_S - (sent + received) / 2
