"""What the fake provider does with a request: how soon, how fast, how much, and what goes wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from agent_worker.scripted.script import PREFIX, parse_script
from agent_worker.user_code.errors import AgentError
from selfhost_transport.distribution import Distribution
from selfhost_transport.errors import InvalidArgument


class Fault(StrEnum):
    """How a request can fail."""

    RATE_LIMIT = "rate_limit"
    """429 instead of an answer."""
    OVERLOADED = "overloaded"
    """503 (OpenAI) or 529 (Anthropic) instead of an answer."""
    FAILED = "failed"
    """500 instead of an answer."""
    STREAM_ERROR = "stream_error"
    """An error event in the middle of the answer."""
    DROPPED = "dropped"
    """The connection is cut in the middle of the answer."""
    SILENT = "silent"
    """Nothing more comes from the middle of the answer on, until the reader hangs up."""


BEFORE = frozenset({Fault.RATE_LIMIT, Fault.OVERLOADED, Fault.FAILED})
"""Faults in place of an answer; the others come in the middle of it."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Seconds to the first token, tokens per second (0 = as fast as they are read), tokens; faults in per cent."""

    first_token_s: Distribution = field(default_factory=lambda: Distribution("constant", (0.3,)))
    rate: Distribution = field(default_factory=lambda: Distribution("constant", (50.0,)))
    tokens: Distribution = field(default_factory=lambda: Distribution("constant", (200.0,)))
    faults: Mapping[Fault, float] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def parse(cls, first_token: str, rate: str, tokens: str, faults: Sequence[str], seed: int) -> Behaviour:
        """Read the options of the command line. Raises InvalidArgument."""
        return cls(
            Distribution.parse(first_token),
            Distribution.parse(rate),
            Distribution.parse(tokens),
            _faults(faults),
            seed,
        )

    def answer(self, text: str, digest: str, repeat: int, most: int | None) -> PlannedAnswer:
        """What happens to a request. The same request gets the same, in whatever order requests arrive.

        `text`: the newest words of the user; a script in them decides instead. `digest`: of the whole request, `repeat`: how
        often it was seen before, `most`: the tokens that the caller allows.
        """
        rng = Random(f"{self.seed}/{digest}/{repeat}")
        tokens = max(1, round(self.tokens.draw(rng)))
        answer = PlannedAnswer(self.first_token_s.draw(rng), self.rate.draw(rng), tokens, self._fault(rng))
        at = rng.randrange(tokens)
        answer = dataclasses.replace(_scripted(answer, text), at=at)
        if most is not None and most < answer.tokens:
            answer = dataclasses.replace(answer, tokens=max(1, most), cut=True)
        return dataclasses.replace(
            answer, at=min(answer.at if answer.hang_at is None else answer.hang_at, answer.tokens)
        )

    def _fault(self, rng: Random) -> Fault | None:
        drawn = rng.random() * 100
        for fault, percent in self.faults.items():
            drawn -= percent
            if drawn < 0:
                return fault
        return None


@dataclass(frozen=True, slots=True)
class PlannedAnswer:
    """One answer. `at`: the token before which its fault comes; `cut`: the caller's limit ends it."""

    first_token_s: float
    rate: float
    tokens: int
    fault: Fault | None = None
    at: int = 0
    cut: bool = False
    hang_at: int | None = None


def _scripted(answer: PlannedAnswer, text: str) -> PlannedAnswer:
    """With the lengths and rates of a script of the load generator; its failures are a matter of the scripted model."""
    # Messages that follow one another are one to a provider: the newest counts.
    begin = text.rfind(PREFIX)
    try:
        script = parse_script(text[begin:]) if begin >= 0 else None
    except AgentError:
        return answer
    if script is None:
        return answer
    hangs = script.hang_at is not None
    return dataclasses.replace(
        answer, first_token_s=0.0, rate=script.rate, tokens=max(1, script.tokens),
        fault=Fault.SILENT if hangs else answer.fault, hang_at=script.hang_at,
    )  # fmt: skip


def _faults(given: Sequence[str]) -> dict[Fault, float]:
    found: dict[Fault, float] = {}
    for one in given:
        name, _, percent = one.partition("=")
        try:
            found[Fault(name)] = float(percent.removesuffix("%"))
        except ValueError:
            raise InvalidArgument(
                f"{one[:80]!r}: give KIND=PERCENT, with one of {', '.join(Fault)}"
            ) from None
    if any(percent < 0 for percent in found.values()) or sum(found.values()) > 100:
        raise InvalidArgument("the percentages of faults are not negative, and at most 100 together")
    return found
