"""The load of a comparison: which token of which turn is due when, and what a token looks like on the way."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

# Characters a token is filled up with: 200 bytes with what is around them.
_FILLING = "x" * 140


class RivalLoad(msgspec.Struct, frozen=True):
    """`turns` at once, `rate` tokens per second each. The turns start one after the other, within the warm-up."""

    turns: int
    rate: float
    warmup_s: float
    seconds: float

    @property
    def due(self) -> float:
        """Tokens per second of all turns together."""
        return self.turns * self.rate

    def argument(self) -> str:
        """As an argument of a program."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def parse(cls, argument: str) -> RivalLoad:
        """The reverse."""
        return msgspec.json.decode(argument, type=cls)

    def schedule(self, start: float) -> Iterator[tuple[float, int, int]]:
        """(due, turn, number) of each token in the order in which they are due; times since the epoch."""
        periods = int((self.warmup_s + self.seconds) * self.rate)
        first = [int(turn / self.turns * self.warmup_s / 2 * self.rate) for turn in range(self.turns)]
        for period in range(periods):
            for turn in range(self.turns):
                if period >= first[turn]:
                    due = start + (period + turn / self.turns) / self.rate
                    yield due, turn, period - first[turn]


class Token(msgspec.Struct):
    """A token on the way: the number in its turn, and when it was due, seconds since the epoch."""

    n: int
    due: float
    text: str


encode_token = msgspec.json.Encoder().encode


def token(number: int, due: float) -> bytes:
    """A token as JSON, about 200 bytes."""
    return encode_token(Token(number, due, _FILLING))
