"""The options of `selfhost-transport loadtest`: what each takes, what its help says, and its default."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from selfhost_transport.settings import ENV_PREFIX


def variable(name: str) -> str:
    """The environment variable of an option."""
    return f"{ENV_PREFIX}LOADTEST_{name}"


Scenario = Annotated[
    str, typer.Argument(help="steady, ramp, interrupt, noisy, herd, cancel, idle or overload.")
]
Url = Annotated[list[str] | None, typer.Option(help="Gateway to test; may be given several times.")]
Key = Annotated[
    str, typer.Option(help="API key, name:secret; default: that of `dev`.", envvar=variable("KEY"))
]
Token = Annotated[str, typer.Option(help="Token instead of a key.", envvar=variable("TOKEN"))]
Local = Annotated[bool, typer.Option("--local", help="Start Redis, gateways and workers for the test.")]
Gateways = Annotated[int, typer.Option(min=1, help="With --local: gateways.")]
Workers = Annotated[int, typer.Option(min=1, help="With --local: workers.")]
Window = Annotated[int, typer.Option(help="With --local: flush window of the workers, ms.")]
Agent = Annotated[
    str,
    typer.Option(
        metavar="MODULE:OBJECT", help="With --local: your own worker instead of the scripted model."
    ),
]
FakeProvider = Annotated[
    bool,
    typer.Option(
        "--fake-provider", help="With --local: start a provider that costs nothing, for the workers."
    ),
]
ProviderOptions = Annotated[
    str, typer.Option(help="Options of the fake provider, as one text.", show_default="its own")
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Load an agent whose model may cost money, without being refused.")
]
Prompts = Annotated[
    Path | None, typer.Option(help="Conversations to hold, one a line, text or .jsonl; implies --any-text.")
]
AnyText = Annotated[
    bool,
    typer.Option("--any-text", help="Answers may say anything: check order, loss, ends and the history."),
]
Think = Annotated[
    str,
    typer.Option(
        help="Seconds between an answer and the next message: a number, uniform:1,5, exponential:3 …"
    ),
]
Arrivals = Annotated[
    float,
    typer.Option(
        help="Conversations that begin per second (open model); 0 = --turns people, one after another."
    ),
]
RampUp = Annotated[float, typer.Option(help="Seconds over which the people come, or the arrivals grow.")]
People = Annotated[
    str,
    typer.Option(help="Who is there: read=100,cancel=10,interrupt=50@30%,reload=5.", show_default="all read"),
]
Price = Annotated[
    str, typer.Option(help="INPUT,OUTPUT: prices of a million tokens, to report the cost by usage.")
]
Name = Annotated[str, typer.Option(help="Name of the run, in reports and comparisons.")]
Slots = Annotated[int, typer.Option(help="With --local: turns a worker runs at once; 0 = no limit.")]
Turns = Annotated[int, typer.Option(help="Turns at once (sessions, or connections when idle).")]
Rate = Annotated[float, typer.Option(help="Tokens per second of each turn.")]
Tokens = Annotated[int, typer.Option(help="Tokens of each turn.")]
Viewers = Annotated[int, typer.Option(help="Connections that watch each session.")]
Cancel = Annotated[float, typer.Option(help="Percentage of turns cancelled at a random moment.")]
Duration = Annotated[float, typer.Option(help="Seconds measured.")]
Warmup = Annotated[
    float | None,
    typer.Option(help="Seconds of load before measuring; default: until all turns have started."),
]
Pause = Annotated[float, typer.Option(help="Seconds between the turns of a session.")]
Patience = Annotated[
    float,
    typer.Option(
        help="Seconds to wait for a terminal before it counts as missing; 0 = 20, with --any-text 60."
    ),
]
Namespace = Annotated[
    str, typer.Option(help="Namespace of the sessions; its agent answers. Several, with commas, take turns.")
]
Formats = Annotated[str, typer.Option(help="json, msgpack, or both, in turn.")]
Processes = Annotated[int, typer.Option(help="Generator processes; 0 = chosen by the number of connections.")]
Knee = Annotated[float, typer.Option(help="ramp: p99 in ms that the search stays inside.")]
MaxTurns = Annotated[int, typer.Option(help="ramp: upper limit of the search.")]
Sends = Annotated[float, typer.Option(help="overload: capacity in sends per second; 0 = measure it first.")]
Factors = Annotated[str, typer.Option(help="overload: multiples of the capacity to offer.")]
Rounds = Annotated[int, typer.Option(help="overload: number of passes over all factors.")]
MaxP99Ms = Annotated[float | None, typer.Option(help="Fail above: p99, token due to received.")]
MaxFirstTokenP99Ms = Annotated[float | None, typer.Option(help="Fail above.")]
MaxCancelP99Ms = Annotated[float | None, typer.Option(help="Fail above: cancel to acknowledged.")]
MinTokensPerS = Annotated[float | None, typer.Option(help="Fail below.")]
MaxUsPerToken = Annotated[float | None, typer.Option(help="With --local: fail above, all CPU together.")]
MinGoodput = Annotated[float | None, typer.Option(help="overload: fail below this share of the peak.")]
MaxErrors = Annotated[
    float | None,
    typer.Option(help="Fail above: turns that failed, per cent.", show_default="1 with --any-text"),
]
Json = Annotated[Path | None, typer.Option(help="Write everything to this file.")]
Html = Annotated[Path | None, typer.Option(help="Write a report to this file.")]
Compare = Annotated[tuple[Path, Path] | None, typer.Option(help="Compare two JSON files instead of testing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No bars.")]


@dataclass(frozen=True, slots=True)
class LoadtestOptions:
    """The command's parameters, in the order of its help."""

    scenario: Scenario = "steady"
    url: Url = None
    key: Key = ""
    token: Token = ""
    local: Local = False
    gateways: Gateways = 1
    workers: Workers = 1
    window: Window = 40
    agent: Agent = ""
    fake_provider: FakeProvider = False
    provider_options: ProviderOptions = ""
    yes: Yes = False
    prompts: Prompts = None
    any_text: AnyText = False
    think: Think = "0"
    arrivals: Arrivals = 0.0
    ramp_up: RampUp = 0.0
    people: People = ""
    price: Price = ""
    name: Name = ""
    slots: Slots = 0
    turns: Turns = 100
    rate: Rate = 50.0
    tokens: Tokens = 200
    viewers: Viewers = 1
    cancel: Cancel = 0.0
    duration: Duration = 20.0
    warmup: Warmup = None
    pause: Pause = 0.0
    patience: Patience = 0.0
    namespace: Namespace = "loadtest"
    formats: Formats = "json,msgpack"
    processes: Processes = 0
    knee: Knee = 100.0
    max_turns: MaxTurns = 4096
    sends: Sends = 0.0
    factors: Factors = "0.5,1,2,4"
    rounds: Rounds = 1
    max_p99_ms: MaxP99Ms = None
    max_first_token_p99_ms: MaxFirstTokenP99Ms = None
    max_cancel_p99_ms: MaxCancelP99Ms = None
    min_tokens_per_s: MinTokensPerS = None
    max_us_per_token: MaxUsPerToken = None
    min_goodput: MinGoodput = None
    max_errors: MaxErrors = None
    json: Json = None
    html: Html = None
    compare: Compare = None
    quiet: Quiet = False
