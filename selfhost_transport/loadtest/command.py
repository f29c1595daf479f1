"""`selfhost-transport loadtest`: its options and its output."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.extras import install_command
from selfhost_transport.loadtest.plan import (
    DEFAULT_MAX_ERRORS,
    Budget,
    Job,
    Load,
    LocalOptions,
    OverloadOptions,
    People,
    Prices,
    Scenario,
    Target,
)
from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET, ENV_PREFIX
from selfhost_transport.wire.codec import Format

Choice = TypeVar("Choice", bound=StrEnum)

_PATIENCE_S = 20.0
_LONG_PATIENCE_S = 60.0
_SECRET = ("--key", "--token")
_HIDDEN = "…"
_DEV_KEY = f"{DEV_KEY_NAME}:{DEV_KEY_SECRET}"


def _variable(name: str) -> str:
    return f"{ENV_PREFIX}LOADTEST_{name}"


def register(app: typer.Typer) -> None:
    """Add the command to the program. Nothing heavy is imported until it runs."""
    app.command()(loadtest)


def loadtest(
    scenario: Annotated[
        str, typer.Argument(help="steady, ramp, interrupt, noisy, herd, cancel, idle or overload.")
    ] = "steady",
    url: Annotated[
        list[str] | None, typer.Option(help="Gateway to test; may be given several times.")
    ] = None,
    key: Annotated[
        str, typer.Option(help="API key, name:secret; default: that of `dev`.", envvar=_variable("KEY"))
    ] = "",
    token: Annotated[
        str, typer.Option(help="Token instead of a key.", envvar=_variable("TOKEN"))
    ] = "",
    local: Annotated[
        bool, typer.Option("--local", help="Start Redis, gateways and workers for the test.")
    ] = False,
    gateways: Annotated[int, typer.Option(min=1, help="With --local: gateways.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="With --local: workers.")] = 1,
    window: Annotated[int, typer.Option(help="With --local: flush window of the workers, ms.")] = 40,
    agent: Annotated[
        str, typer.Option(metavar="MODULE:OBJECT", help="With --local: your own worker instead of the scripted model.")
    ] = "",
    fake_provider: Annotated[
        bool, typer.Option("--fake-provider", help="With --local: start a provider that costs nothing, for the workers.")
    ] = False,
    provider_options: Annotated[
        str, typer.Option(help="Options of the fake provider, as one text.", show_default="its own")
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Load an agent whose model may cost money, without being refused.")
    ] = False,
    prompts: Annotated[
        Path | None, typer.Option(help="Conversations to hold, one a line, text or .jsonl; implies --any-text.")
    ] = None,
    any_text: Annotated[
        bool, typer.Option("--any-text", help="Answers may say anything: check order, loss, ends and the history.")
    ] = False,
    think: Annotated[
        str, typer.Option(help="Seconds between an answer and the next message: a number, uniform:1,5, exponential:3 …")
    ] = "0",
    arrivals: Annotated[
        float, typer.Option(help="Conversations that begin per second (open model); 0 = --turns people, one after another.")
    ] = 0.0,
    ramp_up: Annotated[float, typer.Option(help="Seconds over which the people come, or the arrivals grow.")] = 0.0,
    people: Annotated[
        str, typer.Option(help="Who is there: read=100,cancel=10,interrupt=50@30%,reload=5.", show_default="all read")
    ] = "",
    price: Annotated[
        str, typer.Option(help="INPUT,OUTPUT: prices of a million tokens, to report the cost by usage.")
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the run, in reports and comparisons.")] = "",
    slots: Annotated[int, typer.Option(help="With --local: turns a worker runs at once; 0 = no limit.")] = 0,
    turns: Annotated[int, typer.Option(help="Turns at once (sessions, or connections when idle).")] = 100,
    rate: Annotated[float, typer.Option(help="Tokens per second of each turn.")] = 50.0,
    tokens: Annotated[int, typer.Option(help="Tokens of each turn.")] = 200,
    viewers: Annotated[int, typer.Option(help="Connections that watch each session.")] = 1,
    cancel: Annotated[float, typer.Option(help="Percentage of turns cancelled at a random moment.")] = 0.0,
    duration: Annotated[float, typer.Option(help="Seconds measured.")] = 20.0,
    warmup: Annotated[
        float | None, typer.Option(help="Seconds of load before measuring; default: until all turns have started.")
    ] = None,
    pause: Annotated[float, typer.Option(help="Seconds between the turns of a session.")] = 0.0,
    patience: Annotated[
        float, typer.Option(help="Seconds to wait for a terminal before it counts as missing; 0 = 20, with --any-text 60.")
    ] = 0.0,
    namespace: Annotated[
        str, typer.Option(help="Namespace of the sessions; its agent answers. Several, with commas, take turns.")
    ] = "loadtest",
    formats: Annotated[str, typer.Option(help="json, msgpack, or both, in turn.")] = "json,msgpack",
    processes: Annotated[int, typer.Option(help="Generator processes; 0 = chosen by the number of connections.")] = 0,
    knee: Annotated[float, typer.Option(help="ramp: p99 in ms that the search stays inside.")] = 100.0,
    max_turns: Annotated[int, typer.Option(help="ramp: upper limit of the search.")] = 4096,
    sends: Annotated[float, typer.Option(help="overload: capacity in sends per second; 0 = measure it first.")] = 0.0,
    factors: Annotated[str, typer.Option(help="overload: multiples of the capacity to offer.")] = "0.5,1,2,4",
    rounds: Annotated[int, typer.Option(help="overload: number of passes over all factors.")] = 1,
    max_p99_ms: Annotated[float | None, typer.Option(help="Fail above: p99, token due to received.")] = None,
    max_first_token_p99_ms: Annotated[float | None, typer.Option(help="Fail above.")] = None,
    max_cancel_p99_ms: Annotated[float | None, typer.Option(help="Fail above: cancel to acknowledged.")] = None,
    min_tokens_per_s: Annotated[float | None, typer.Option(help="Fail below.")] = None,
    max_us_per_token: Annotated[float | None, typer.Option(help="With --local: fail above, all CPU together.")] = None,
    min_goodput: Annotated[float | None, typer.Option(help="overload: fail below this share of the peak.")] = None,
    max_errors: Annotated[
        float | None, typer.Option(help="Fail above: turns that failed, per cent.", show_default="1 with --any-text")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report to this file.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Compare two JSON files instead of testing.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bars.")] = False,
) -> None:  # fmt: skip
    """Put load on a deployment, measure it, verify every token.

    Exit status 1 when anything was lost, repeated, reordered, came after a cancel or did not end, and when a
    threshold was missed.
    """
    if local and url:
        raise InvalidArgument(
            "--local starts a deployment of its own, and --url names another one: give one of them"
        )
    if compare is not None:
        _with_packages("compare_files", *compare, html)
        return
    if (agent or fake_provider) and not local:
        raise InvalidArgument("--agent and --fake-provider are parts of the deployment that --local starts")
    talkers = People.parse(people)
    turns = sum(one.count for one in talkers) or turns
    any_text = any_text or prompts is not None
    conversations = _with_packages("prompts_of", prompts) if any_text else ()
    load = Load(
        scenario=_choice(Scenario, scenario), turns=turns, rate=rate, tokens=tokens, viewers=viewers,
        cancel_percent=cancel, duration_s=duration, warmup_s=warmup, pause_s=pause,
        patience_s=patience or (_LONG_PATIENCE_S if any_text else _PATIENCE_S),
        namespace=namespace, formats=tuple(_choice(Format, name) for name in formats.split(",")),
        processes=processes, sends_per_s=sends, any_text=any_text, prompts=conversations, prompt_count=len(conversations),
        think=think, arrivals_per_s=arrivals, ramp_up_s=ramp_up, people=talkers,
    )  # fmt: skip
    load.check()
    budget = Budget(
        max_p99_ms,
        max_first_token_p99_ms,
        max_cancel_p99_ms,
        min_tokens_per_s,
        max_us_per_token,
        min_goodput,
        DEFAULT_MAX_ERRORS if max_errors is None and any_text else max_errors,
    )
    job = Job(
        load, budget, knee, max_turns,
        target=None if local else Target.parse(url or [], key or ("" if token else _DEV_KEY), token),
        local=LocalOptions(
            gateways, workers, max(turns, _ramp_turns(load, max_turns)), window, slots, agent,
            tuple(shlex.split(provider_options)) if fake_provider else None,
        ) if local else None,
        overload=OverloadOptions.parse(factors, rounds), yes=yes, prices=Prices.parse(price), name=name,
        command=command_line(sys.argv), json=json, html=html, quiet=quiet,
    )  # fmt: skip
    if load.scenario is Scenario.HERD and (not local or gateways < 2):
        raise InvalidArgument("the herd scenario kills a gateway: it needs --local and --gateways 2 or more")
    raise typer.Exit(0 if _with_packages("execute", job) else 1)


def command_line(arguments: Sequence[str]) -> str:
    """The command as it was given, without its credentials."""
    shown, secret = ["selfhost-transport"], False
    for argument in arguments[1:]:
        name, equals, _ = argument.partition("=")
        if name in _SECRET and equals:
            argument = f"{name}={_HIDDEN}"
        shown.append(_HIDDEN if secret else shlex.quote(argument))
        secret = name in _SECRET and not equals
    return " ".join(shown)


def _ramp_turns(load: Load, max_turns: int) -> int:
    return max_turns if load.scenario is Scenario.RAMP else 0


def _choice(kind: type[Choice], name: str) -> Choice:
    try:
        return kind(name)
    except ValueError:
        raise InvalidArgument(f"{name!r} is not one of {', '.join(kind)}") from None


def _with_packages(function: str, *arguments: object) -> Any:
    """Call a function of `execute`, which needs the packages of the extra `loadtest`."""
    try:
        module = importlib.import_module("selfhost_transport.loadtest.execute")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("selfhost_transport"):
            raise
        raise InvalidArgument(
            f"the load generator needs more packages: {install_command('loadtest')}"
        ) from error
    return getattr(module, function)(*arguments)
