"""Random values as a command line names them: `0.3`, `uniform:0.1,0.5`, `normal:0.3,0.1`, `exponential:0.3`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Final

from selfhost_transport.errors import InvalidArgument

_SHAPES: Final[Mapping[str, tuple[int, Callable[..., float]]]] = MappingProxyType(
    {
        "constant": (1, lambda rng, value: value),
        "uniform": (2, lambda rng, low, high: rng.uniform(low, high)),
        "normal": (2, lambda rng, mean, deviation: rng.gauss(mean, deviation)),
        # By its median, which people know, instead of the mean of the logarithm.
        "lognormal": (2, lambda rng, median, sigma: median * math.exp(rng.gauss(0.0, sigma))),
        "exponential": (1, lambda rng, mean: rng.expovariate(1 / mean) if mean else 0.0),
    }
)


@dataclass(frozen=True, slots=True)
class Distribution:
    """A shape with its numbers. Values are never negative."""

    shape: str
    numbers: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Distribution:
        """Read `0.3` or `shape:number,number`. Raises InvalidArgument."""
        shape, colon, rest = text.strip().partition(":")
        if not colon:
            shape, rest = "constant", shape
        wanted = _SHAPES.get(shape)
        try:
            numbers = tuple(float(number) for number in rest.split(","))
        except ValueError:
            numbers = ()
        fits = wanted is not None and len(numbers) == wanted[0]
        if not fits or not all(0 <= number < math.inf for number in numbers):
            raise InvalidArgument(
                f"{text[:80]!r} is no distribution: give a number, uniform:LOW,HIGH, normal:MEAN,DEVIATION, "
                "lognormal:MEDIAN,SIGMA or exponential:MEAN, none of them negative"
            )
        return cls(shape, numbers)

    def draw(self, rng: Random) -> float:
        """One value."""
        return max(0.0, _SHAPES[self.shape][1](rng, *self.numbers))
