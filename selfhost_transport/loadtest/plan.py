"""What a run is: the deployment it goes against, the load, and what counts as good enough."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from selfhost_transport.distribution import Distribution
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.wire.codec import Format

PROTOCOL_VERSION = "6"
_SCHEMES = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
CONNECTIONS_PER_PROCESS = 1500
"""Connections one generator process is given before there is another, if the machine has the cores."""

FIRST_SENDS_PER_S = 100
"""First sends per second. All at once, they would be another load than the one asked for, and its latencies
would still be seen when measuring begins."""
_SHORTEST_LEAD_S = 2.0
_SPREAD = 0.75


class Habit(StrEnum):
    """What a person does while an answer streams, at a random moment of its first seconds."""

    READ = "read"
    CANCEL = "cancel"
    INTERRUPT = "interrupt"
    """Sends the next message with policy `interrupt`."""
    RELOAD = "reload"
    """Loses the connection, reads the conversation from the history, and resumes."""


@dataclass(frozen=True, slots=True)
class People:
    """`count` people with a habit, which they follow in `percent` of their turns."""

    habit: Habit
    count: int
    percent: float = 100.0

    @classmethod
    def parse(cls, text: str) -> tuple[People, ...]:
        """Read `read=100,interrupt=50@30%`. Raises InvalidArgument."""
        found = []
        for one in filter(None, text.split(",")):
            name, _, rest = one.strip().partition("=")
            count, _, percent = rest.partition("@")
            try:
                found.append(cls(Habit(name), int(count), float(percent.removesuffix("%") or 100)))
            except ValueError:
                raise InvalidArgument(
                    f"{one[:64]!r}: give HABIT=COUNT or HABIT=COUNT@PERCENT, with one of {', '.join(Habit)}"
                ) from None
        if any(one.count < 1 or not 0 <= one.percent <= 100 for one in found):
            raise InvalidArgument(
                "people are counted from 1, and a habit is followed in 0 to 100 % of the turns"
            )
        return tuple(found)


class Scenario(StrEnum):
    """The shapes of load."""

    STEADY = "steady"
    """Concurrent turns at a constant rate, each session starting its next turn on schedule, ready or not."""
    RAMP = "ramp"
    """Steady load, doubled and bisected to the most turns inside the latency budget."""
    INTERRUPT = "interrupt"
    """Send, interrupt after 0 to 2 s in mixed ways, with double clicks and lost sockets."""
    NOISY = "noisy"
    """Steady load beside one session that streams as fast as it can to a reader that stops reading."""
    HERD = "herd"
    """A gateway is killed under its clients; needs `--local` with at least two gateways."""
    CANCEL = "cancel"
    """All turns cancelled within a second, again and again, every fourth with a model gone silent."""
    IDLE = "idle"
    """Attached connections on which nothing happens."""
    OVERLOAD = "overload"
    """Sends at a rate that does not wait for answers: below, at, and several times the capacity, and back."""


@dataclass(frozen=True, slots=True)
class Target:
    """A deployment: websocket addresses without query, and a key (`appId.keyId:secret`) or a token."""

    urls: tuple[str, ...]
    key: str = ""
    token: str = ""

    @classmethod
    def parse(cls, urls: list[str], key: str, token: str) -> Target:
        """Read `ws://host:port`, or the same with http(s) or wss. Raises InvalidArgument."""
        if not urls:
            raise InvalidArgument(
                "give at least one address (--url), or --local to start a deployment for the test"
            )
        if bool(key) == bool(token):
            raise InvalidArgument("give either a key or a token")
        return cls(tuple(_websocket(url) for url in urls), key, token)

    @property
    def same_machine(self) -> bool:
        """Whether the gateways' clock is this machine's."""
        return all(urlsplit(url).hostname in _LOOPBACK for url in self.urls)

    @property
    def headers(self) -> dict[str, str]:
        """The credentials of a request or of an upgrade: in a header, which no log of addresses shows."""
        if self.key:
            return {"Authorization": f"Basic {base64.b64encode(self.key.encode()).decode()}"}
        return {"Authorization": f"Bearer {self.token}"}

    def http_url(self, number: int) -> str:
        """The address of the `number`-th gateway for plain requests."""
        scheme, _, rest = self.urls[number % len(self.urls)].partition("://")
        return f"{'https' if scheme == 'wss' else 'http'}://{rest}"

    def socket_url(self, number: int, fmt: Format, client_id: str, resume: str = "") -> str:
        """The address for the `number`-th connection; connections go round the gateways."""
        query = {"format": fmt.value, "v": PROTOCOL_VERSION, "heartbeats": "false", "clientId": client_id}
        if resume:
            query["resume"] = resume
        return f"{self.urls[number % len(self.urls)]}/?{urlencode(query)}"


@dataclass(frozen=True, slots=True)
class Load:
    """The load of one run. Rates in tokens per second and turn, times in seconds."""

    scenario: Scenario = Scenario.STEADY
    turns: int = 100
    rate: float = 50.0
    tokens: int = 200
    viewers: int = 1
    # How many turns are cancelled at a random moment, per cent.
    cancel_percent: float = 0.0
    duration_s: float = 20.0
    # Load before measuring; None: as long as the first sends need (`lead_s`).
    warmup_s: float | None = None
    # Between the end of a turn on schedule and the next send of its session.
    pause_s: float = 0.0
    # A turn without a terminal this long after it should have ended is a violation.
    patience_s: float = 20.0
    # First part of the sessions' names: the namespace whose agent answers.
    # Several, separated by commas: the sessions are spread over them.
    namespace: str = "loadtest"
    formats: tuple[Format, ...] = (Format.JSON, Format.MSGPACK)
    processes: int = 0
    # overload: sends per second of all sessions together; in the runs of the scenario, those of the run.
    sends_per_s: float = 0.0
    # overload: the last seconds of the duration, in which only `calm_sends_per_s` are offered.
    calm_s: float = 0.0
    calm_sends_per_s: float = 0.0
    # Answers may say anything: they are checked by position, and against the history.
    any_text: bool = False
    # Conversations, each a list of messages; the people go round them.
    prompts: tuple[tuple[str, ...], ...] = ()
    prompt_count: int = 0
    # Seconds between an answer and the person's next message, as a distribution.
    think: str = "0"
    # Conversations that begin per second, whatever became of earlier ones; 0: `turns` people, one after another.
    arrivals_per_s: float = 0.0
    # Over which the people come, or the arrivals grow to their rate; 0: while warming up.
    ramp_up_s: float = 0.0
    people: tuple[People, ...] = ()

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces, by name."""
        return tuple(name.strip() for name in self.namespace.split(","))

    def habit_of(self, number: int) -> tuple[Habit, float]:
        """What the `number`-th person does, and in how many of the turns, in per cent."""
        if not self.people:
            all_interrupt = self.scenario is Scenario.INTERRUPT
            return (Habit.INTERRUPT, 100.0) if all_interrupt else (Habit.CANCEL, self.cancel_percent)
        left = number % sum(one.count for one in self.people)
        for one in self.people:
            if left < one.count:
                return one.habit, one.percent
            left -= one.count
        raise AssertionError(number)

    @property
    def connections(self) -> int:
        """Sockets that are opened."""
        return self.turns * self.viewers

    @property
    def turn_s(self) -> float:
        """How long a turn takes on schedule."""
        return self.tokens / self.rate if self.rate else 0.0

    @property
    def lead_s(self) -> float:
        """Seconds of load before measuring."""
        if self.warmup_s is not None:
            return self.warmup_s
        if self.scenario is Scenario.OVERLOAD:
            return _SHORTEST_LEAD_S
        return max(_SHORTEST_LEAD_S, self.turns / FIRST_SENDS_PER_S / _SPREAD, self.ramp_up_s / _SPREAD)

    @property
    def spread_s(self) -> float:
        """Seconds over which the first sends are spread; the rest of the lead lets the deployment settle."""
        return self.ramp_up_s or self.lead_s * _SPREAD

    @property
    def generator_processes(self) -> int:
        """As asked for; by default by the number of connections, at most half of the cores."""
        if self.processes:
            return self.processes
        wanted = -(-self.connections // CONNECTIONS_PER_PROCESS)
        return max(1, min(wanted, (os.cpu_count() or 2) // 2))

    def check(self) -> None:
        """Raises InvalidArgument for a load that cannot be run."""
        if min(self.turns, self.tokens, self.viewers) < 1 or self.rate < 0 or self.duration_s <= 0:
            raise InvalidArgument(
                "turns, tokens, viewers and the duration are positive, the rate is not negative"
            )
        if self.rate == 0 and self.scenario is not Scenario.IDLE:
            raise InvalidArgument("a schedule needs a rate above 0")
        if not 0 <= self.cancel_percent <= 100:
            raise InvalidArgument("--cancel is a percentage")
        if min(self.arrivals_per_s, self.ramp_up_s) < 0 or not all(self.namespaces):
            raise InvalidArgument("arrivals and ramp-up are not negative, and a namespace has a name")
        Distribution.parse(self.think)
        if self.any_text:
            if self.scenario not in _ANY_TEXT:
                raise InvalidArgument(
                    f"with answers of any text the scenario is one of {', '.join(_ANY_TEXT)}: {self.scenario} needs the scripted "
                    "model"
                )
        elif self.people or self.arrivals_per_s or self.think != "0":
            raise InvalidArgument("--people, --arrivals and --think need --any-text or --prompts")


_ANY_TEXT = (Scenario.STEADY, Scenario.RAMP, Scenario.INTERRUPT, Scenario.HERD)


@dataclass(frozen=True, slots=True)
class LoadShare:
    """What one generator process does: `count` sessions from number `first` on."""

    target: Target
    load: Load
    run: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class OverloadOptions:
    """`factors`: offered load, as multiples of the capacity. `rounds`: passes over all factors."""

    factors: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    rounds: int = 1

    @classmethod
    def parse(cls, factors: str, rounds: int) -> OverloadOptions:
        """Read `0.5,1,2,4`. Raises InvalidArgument."""
        try:
            found = tuple(float(factor) for factor in factors.split(","))
        except ValueError:
            raise InvalidArgument(f"factors are numbers such as 0.5,1,2,4, not {factors[:64]!r}") from None
        if min(found) <= 0 or rounds < 1:
            raise InvalidArgument("factors and rounds are positive")
        return cls(found, rounds)


DEFAULT_MAX_ERRORS = 1.0
"""Per cent of the turns of one's own agent that may fail before the run has failed."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Thresholds of a run; None: not asked for."""

    max_p99_ms: float | None = None
    max_first_token_p99_ms: float | None = None
    max_cancel_p99_ms: float | None = None
    min_tokens_per_s: float | None = None
    max_us_per_token: float | None = None
    # overload: the least goodput beyond the capacity, as a share of the most that was seen.
    min_goodput: float | None = None
    # Turns that failed or were refused, per cent of those sent; None with answers of any text: DEFAULT_MAX_ERRORS.
    max_errors_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in the currency of who gives them."""

    input: float = 0.0
    output: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Prices | None:
        """Read `INPUT,OUTPUT`; None for ''. Raises InvalidArgument."""
        if not text:
            return None
        try:
            found = cls(*(float(one) for one in text.split(",")))
        except (ValueError, TypeError):
            raise InvalidArgument(f"prices look like 0.15,0.60, not {text[:64]!r}") from None
        if min(found.input, found.output) < 0:
            raise InvalidArgument("prices are not negative")
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run. `knee_ms` is the p99 of tokens, from the schedule, that a ramp stays inside."""

    target: Target
    load: Load
    budget: Budget = field(default_factory=Budget)
    knee_ms: float = 100.0
    max_turns: int = 4096
    overload: OverloadOptions = field(default_factory=OverloadOptions)
    prices: Prices | None = None
    name: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """What to start. `turns`: how many the workers must be able to run at once; `window_ms`: gathering of tokens.

    `slots`: how many each worker runs at once instead; 0: as `turns` says.
    """

    gateways: int = 1
    workers: int = 1
    turns: int = 100
    window_ms: int = 40
    slots: int = 0
    # MODULE:OBJECT of the workers; '': the scripted model.
    agent: str = ""
    # Options of a fake provider that is started too, and given to the workers; None: none is.
    provider: tuple[str, ...] | None = None

    @property
    def free_models(self) -> bool:
        """Whether nothing that is sent can cost money."""
        return not self.agent or self.provider is not None


@dataclass(frozen=True, slots=True)
class Job:
    """What the command line asks for: exactly one of `target` and `local`, and where the result goes."""

    load: Load
    budget: Budget
    knee_ms: float
    max_turns: int
    target: Target | None = None
    local: LocalOptions | None = None
    overload: OverloadOptions = field(default_factory=OverloadOptions)
    # Models that may cost money are loaded too.
    yes: bool = False
    prices: Prices | None = None
    # Of the run, in reports and comparisons; and the command line.
    name: str = ""
    command: str = ""
    json: Path | None = None
    html: Path | None = None
    quiet: bool = False


def shares(plan: Plan, run: str) -> list[LoadShare]:
    """The load cut into near-equal shares, one per generator process."""
    processes = min(plan.load.generator_processes, plan.load.turns)
    base, more = divmod(plan.load.turns, processes)
    found, first = [], 0
    for index in range(processes):
        count = base + (index < more)
        found.append(LoadShare(plan.target, plan.load, run, first, count))
        first += count
    return found


def _websocket(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.query:
        raise InvalidArgument(f"an address looks like ws://host:8080 or wss://host, not {url[:200]!r}")
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}"
