"""`selfhost-transport loadtest`: its options and its output."""

from __future__ import annotations

import importlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.loadtest.plan import (
    Budget,
    Job,
    Load,
    LocalOptions,
    OverloadOptions,
    Scenario,
    Target,
)
from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET, ENV_PREFIX
from selfhost_transport.wire.codec import Format

Choice = TypeVar("Choice", bound=StrEnum)

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
    patience: Annotated[float, typer.Option(help="Seconds to wait for a terminal before it counts as missing.")] = 20.0,
    namespace: Annotated[str, typer.Option(help="Namespace of the sessions; its agent answers.")] = "loadtest",
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
        _with_packages("compare_files", *compare)
        return
    load = Load(
        scenario=_choice(Scenario, scenario), turns=turns, rate=rate, tokens=tokens, viewers=viewers,
        cancel_percent=cancel, duration_s=duration, warmup_s=warmup, pause_s=pause, patience_s=patience,
        namespace=namespace, formats=tuple(_choice(Format, name) for name in formats.split(",")),
        processes=processes, sends_per_s=sends,
    )  # fmt: skip
    load.check()
    budget = Budget(
        max_p99_ms, max_first_token_p99_ms, max_cancel_p99_ms, min_tokens_per_s, max_us_per_token, min_goodput
    )
    job = Job(
        load, budget, knee, max_turns,
        target=None if local else Target.parse(url or [], key or ("" if token else _DEV_KEY), token),
        local=LocalOptions(gateways, workers, max(turns, _ramp_turns(load, max_turns)), window, slots) if local else None,
        overload=OverloadOptions.parse(factors, rounds), json=json, html=html, quiet=quiet,
    )  # fmt: skip
    if load.scenario is Scenario.HERD and (not local or gateways < 2):
        raise InvalidArgument("the herd scenario kills a gateway: it needs --local and --gateways 2 or more")
    raise typer.Exit(0 if _with_packages("execute", job) else 1)


def _ramp_turns(load: Load, max_turns: int) -> int:
    return max_turns if load.scenario is Scenario.RAMP else 0


def _choice(kind: type[Choice], name: str) -> Choice:
    try:
        return kind(name)
    except ValueError:
        raise InvalidArgument(f"{name!r} is not one of {', '.join(kind)}") from None


def _with_packages(function: str, *arguments: object) -> bool:
    """Call a function of `execute`, which needs the packages of the extra `loadtest`."""
    try:
        module = importlib.import_module("selfhost_transport.loadtest.execute")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("selfhost_transport"):
            raise
        raise InvalidArgument(
            "the load generator needs more packages: pip install 'selfhost-transport[loadtest]'"
        ) from error
    return bool(getattr(module, function)(*arguments))
