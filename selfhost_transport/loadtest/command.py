"""`selfhost-transport loadtest`: from its options to the job that they describe."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, TypeVar

import typer

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.extras import install_command
from selfhost_transport.loadtest import options as o
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
from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET
from selfhost_transport.wire.codec import Format

Choice = TypeVar("Choice", bound=StrEnum)

_PATIENCE_S = 20.0
_LONG_PATIENCE_S = 60.0
_SECRET = ("--key", "--token")
_HIDDEN = "…"
_DEV_KEY = f"{DEV_KEY_NAME}:{DEV_KEY_SECRET}"


def register(app: typer.Typer) -> None:
    """Add the command to the program. Nothing heavy is imported until it runs."""
    app.command()(loadtest)


def loadtest(
    scenario: o.Scenario = "steady", url: o.Url = None, key: o.Key = "", token: o.Token = "",
    local: o.Local = False, gateways: o.Gateways = 1, workers: o.Workers = 1, window: o.Window = 40,
    agent: o.Agent = "", fake_provider: o.FakeProvider = False, provider_options: o.ProviderOptions = "",
    yes: o.Yes = False, prompts: o.Prompts = None, any_text: o.AnyText = False, think: o.Think = "0",
    arrivals: o.Arrivals = 0.0, ramp_up: o.RampUp = 0.0, people: o.People = "", price: o.Price = "",
    name: o.Name = "", slots: o.Slots = 0, turns: o.Turns = 100, rate: o.Rate = 50.0,
    tokens: o.Tokens = 200, viewers: o.Viewers = 1, cancel: o.Cancel = 0.0, duration: o.Duration = 20.0,
    warmup: o.Warmup = None, pause: o.Pause = 0.0, patience: o.Patience = 0.0,
    namespace: o.Namespace = "loadtest", formats: o.Formats = "json,msgpack", processes: o.Processes = 0,
    knee: o.Knee = 100.0, max_turns: o.MaxTurns = 4096, sends: o.Sends = 0.0,
    factors: o.Factors = "0.5,1,2,4", rounds: o.Rounds = 1, max_p99_ms: o.MaxP99Ms = None,
    max_first_token_p99_ms: o.MaxFirstTokenP99Ms = None, max_cancel_p99_ms: o.MaxCancelP99Ms = None,
    min_tokens_per_s: o.MinTokensPerS = None, max_us_per_token: o.MaxUsPerToken = None,
    min_goodput: o.MinGoodput = None, max_errors: o.MaxErrors = None, json: o.Json = None,
    html: o.Html = None, compare: o.Compare = None, quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Put load on a deployment, measure it, verify every token.

    Exit status 1 when anything was lost, repeated, reordered, came after a cancel or did not end, and when a
    threshold was missed.
    """
    _check_deployment(url, local=local, has_parts=compare is None and (bool(agent) or fake_provider))
    if compare is not None:
        _with_packages("compare_files", *compare, html)
        return
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
        max_p99_ms, max_first_token_p99_ms, max_cancel_p99_ms, min_tokens_per_s, max_us_per_token, min_goodput,
        DEFAULT_MAX_ERRORS if max_errors is None and any_text else max_errors,
    )  # fmt: skip
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


def _check_deployment(url: list[str] | None, *, local: bool, has_parts: bool) -> None:
    """Raises InvalidArgument where it is not clear what is tested. `has_parts`: something is to be started for it."""
    if local and url:
        raise InvalidArgument(
            "--local starts a deployment of its own, and --url names another one: give one of them"
        )
    if has_parts and not local:
        raise InvalidArgument("--agent and --fake-provider are parts of the deployment that --local starts")


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
