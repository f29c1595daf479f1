"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import random


class Backoff:
    """Doubling delays with jitter; one round goes through every endpoint before the delay grows.

    A connection that was up is tried again almost at once, spread a little so that the clients of a gateway
    that died do not return in the same instant (REC-14).
    """

    def __init__(
        self, initial: float, longest: float, endpoints: int, rng: random.Random | None = None
    ) -> None:
        self._initial = initial
        self._longest = longest
        self._endpoints = endpoints
        self._rng = rng or random.Random()
        self._failures = 0

    def reset(self) -> None:
        """The connection is up."""
        self._failures = 0

    def next_delay(self) -> float:
        """Seconds until the next attempt."""
        self._failures += 1
        if self._failures <= self._endpoints:
            return self._rng.uniform(0, self._initial)
        rounds = (self._failures - 1) // self._endpoints
        longest = min(self._initial * 2.0 ** min(rounds, 30), self._longest)
        return self._rng.uniform(longest / 2, longest)
