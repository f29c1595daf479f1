"""What one generator process has seen, and how several of them add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from selfhost_transport.loadtest.histogram import Histogram

_AT_ONCE = 500
MAX_VIOLATIONS = 200
"""Violations kept with their details; all of them are counted."""


class Metric(StrEnum):
    """The measured times. "From the schedule" means from when it should have happened, however late the generator was."""

    FIRST_TOKEN = "first_token"
    """From the schedule of a send to its first token at a viewer."""
    DELIVERY = "delivery"
    """From an append's position (Redis' clock) to its arrival at a viewer."""
    TOKEN = "token"
    """From the moment the model's schedule has a token due to its arrival: worker, gathering and delivery."""
    GAP = "gap"
    """Between two arrivals of one turn."""
    SEND_ACK = "send_ack"
    """From the schedule of a send to its acknowledgement."""
    REFUSAL = "refusal"
    """From the schedule of a send to the answer that asks to send it again later."""
    QUEUE_WAIT = "queue_wait"
    """From the position of a send to the position of its turn's start."""
    CANCEL_ACK = "cancel_ack"
    """From the cancel call to its acknowledgement."""
    CANCEL_CONTENT = "cancel_content"
    """From the cancel call to the last content that arrived; 0 if none came after it."""
    CANCEL_TERMINAL = "cancel_terminal"
    """From the cancel call to the terminal."""
    CONNECT = "connect"
    """From dialling to CONNECTED."""
    ATTACH = "attach"
    """From ATTACH to ATTACHED."""
    RECONNECT = "reconnect"
    """From the loss of a socket to being attached again."""
    TOTAL = "total"
    """From the schedule of a send to the end of its turn, of turns that were completed."""
    TIME_PER_TOKEN = "time_per_token"
    """Of a turn of one's own agent: from its first to its last token, divided by the tokens after the first."""
    RELOAD = "reload"
    """From the loss of a connection to the conversation read from the history."""
    LAG = "lag"
    """How late the generator's own timer ran: what it adds to every figure."""


class ViolationKind(StrEnum):
    """Violations that fail a run at any speed."""

    LOST = "lost"
    DUPLICATE = "duplicate"
    WRONG_TEXT = "wrong_text"
    REORDERED = "reordered"
    AFTER_CANCEL = "after_cancel"
    AFTER_TERMINAL = "after_terminal"
    SECOND_TERMINAL = "second_terminal"
    MISSING_TERMINAL = "missing_terminal"
    WRONG_TERMINAL = "wrong_terminal"
    REFUSED = "refused"
    GENERATOR = "generator"


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    kind: ViolationKind
    session: str
    turn: str
    detail: str


@dataclass(slots=True)
class Second:
    """What arrived in one second of the wall clock; `token` is an encoded histogram."""

    tokens: int
    frames: int
    token: str


@dataclass(slots=True)
class SendSecond:
    """What became of sends in one second: offered by schedule, refused, ended; and seconds to the first tokens that came."""

    offered: int = 0
    shed: int = 0
    ended: int = 0
    first_tokens: list[float] = field(default_factory=list)

    def add(self, other: SendSecond) -> None:
        """Count what another process saw in the same second."""
        self.offered += other.offered
        self.shed += other.shed
        self.ended += other.ended
        self.first_tokens += other.first_tokens


@dataclass(slots=True)
class _Filling:
    """A second while it is filled."""

    tokens: int = 0
    frames: int = 0
    latency: Histogram = field(default_factory=Histogram)

    def closed(self) -> Second:
        return Second(self.tokens, self.frames, self.latency.encode())


@dataclass(slots=True)
class Recording:
    """The outcome of one process. Histograms are encoded by metric; `seconds` by seconds since the epoch."""

    histograms: dict[str, str] = field(default_factory=dict)
    seconds: dict[int, Second] = field(default_factory=dict)
    sends: dict[int, SendSecond] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    violation_counts: dict[str, int] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    # Turns of one's own agent that failed or were refused, by what was said of it.
    errors: dict[str, int] = field(default_factory=dict)
    # Tokens by what the agent reported: `input`, `output`, and `turns` that reported any.
    usage: dict[str, int] = field(default_factory=dict)
    # The estimate of the deployment's clock is off by at most this.
    clock_uncertainty_s: float = 0.0


class Recorder:
    """Records for one process. Durations in seconds; only those between `begin` and `end` count, the rest always."""

    def __init__(self) -> None:
        self.active = False
        self.outcomes: Counter[str] = Counter()
        self.counters: Counter[str] = Counter()
        self.tokens = 0
        self.violation_counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.usage: Counter[str] = Counter()
        self._violations: list[Violation] = []
        self._histograms = {metric: Histogram() for metric in Metric}
        self._seconds: dict[int, _Filling] = {}
        self._sends: dict[int, SendSecond] = {}
        # Put into the histograms many at a time: between two frames the processor has forgotten where they are.
        self._arrivals: list[tuple[float, int, float, float, float, float | None]] = []

    def begin(self) -> None:
        """Start of the measured window."""
        self.active = True

    def end(self) -> None:
        """End of it."""
        self.active = False

    def record(self, metric: Metric, seconds: float) -> None:
        """Count one duration."""
        if self.active:
            self._histograms[metric].record(seconds)

    def record_later(self, metric: Metric, seconds: float) -> None:
        """Count a duration of the measured window that is known only after it."""
        self._histograms[metric].record(seconds)

    def sends(self, now: float) -> SendSecond:
        """Where the sends of a moment are counted, in the measured window or not."""
        return self._sends.setdefault(int(now), SendSecond())

    def first_token(self, now: float, seconds: float) -> None:
        """The first token of a turn came, `seconds` after its send was due."""
        self.sends(now).first_tokens.append(seconds)

    def arrived(
        self,
        now: float,
        tokens: int,
        delivery: float,
        latency: float,
        spacing: float,
        gap: float | None = None,
    ) -> None:
        """A chunk arrived: its delivery time, the time since its last token was due, and since the chunk before.

        Each token before the last was due `spacing` seconds earlier than the next.
        """
        self.tokens += tokens
        if self.active:
            arrivals = self._arrivals
            arrivals.append((now, tokens, delivery, latency, spacing, gap))
            if len(arrivals) >= _AT_ONCE:
                self._count_arrivals()

    def _count_arrivals(self) -> None:
        """Count what has arrived."""
        delivered, gapped = self._histograms[Metric.DELIVERY].record, self._histograms[Metric.GAP].record
        filling, second = _Filling(), 0
        for now, tokens, delivery, latency, spacing, gap in self._arrivals:
            if int(now) != second:
                second = int(now)
                filling = self._seconds.setdefault(second, _Filling())
            filling.tokens += tokens
            filling.frames += 1
            delivered(delivery)
            if gap is not None:
                gapped(gap)
            filling.latency.record(latency)
            for earlier in range(1, tokens):
                filling.latency.record(latency + earlier * spacing)
        self._arrivals.clear()

    def violation(self, kind: ViolationKind, session: str, turn: str, detail: str) -> None:
        """A promise was broken: the run has failed."""
        self.violation_counts[kind] += 1
        if len(self._violations) < MAX_VIOLATIONS:
            self._violations.append(Violation(kind, session, turn, detail))

    def recording(self) -> Recording:
        """Everything until now."""
        self._count_arrivals()
        tokens = Histogram()
        for filled in self._seconds.values():
            tokens.merge(filled.latency)
        histograms = {**self._histograms, Metric.TOKEN: tokens}
        return Recording(
            {metric: found.encode() for metric, found in histograms.items() if found.count},
            {second: filled.closed() for second, filled in self._seconds.items()},
            self._sends,
            dict(self.outcomes),
            dict(self.counters),
            dict(self.violation_counts),
            list(self._violations),
            dict(self.errors),
            dict(self.usage),
        )


def add_up(recordings: list[Recording]) -> Recording:
    """The recordings of several processes as one."""
    total = Recording()
    for one in recordings:
        for metric, encoded in one.histograms.items():
            total.histograms[metric] = _merged(total.histograms.get(metric), encoded)
        for second, found in one.seconds.items():
            before = total.seconds.get(second, Second(0, 0, ""))
            total.seconds[second] = Second(
                before.tokens + found.tokens,
                before.frames + found.frames,
                _merged(before.token or None, found.token),
            )
        for second, sends in one.sends.items():
            total.sends.setdefault(second, SendSecond()).add(sends)
        for mine, theirs in (
            (total.outcomes, one.outcomes),
            (total.counters, one.counters),
            (total.violation_counts, one.violation_counts),
            (total.errors, one.errors),
            (total.usage, one.usage),
        ):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        total.violations += one.violations[: MAX_VIOLATIONS - len(total.violations)]
        total.clock_uncertainty_s = max(total.clock_uncertainty_s, one.clock_uncertainty_s)
    return total


def _merged(first: str | None, second: str) -> str:
    if first is None:
        return second
    histogram = Histogram.decode(first)
    histogram.merge(Histogram.decode(second))
    return histogram.encode()
