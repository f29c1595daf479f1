"""`selfhost-transport loadtest`: from its options to the job that they describe."""

from __future__ import annotations

import importlib
import inspect
import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, TypeVar

import typer

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.extras import install_command
from selfhost_transport.loadtest.options import LoadtestOptions
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
    """Add the command to the program, with a parameter for each option. Nothing heavy is imported until it runs."""

    def loadtest(**given: Any) -> None:
        run(LoadtestOptions(**given))

    loadtest.__doc__ = run.__doc__
    loadtest.__signature__ = inspect.signature(LoadtestOptions)  # type: ignore[attr-defined]
    app.command()(loadtest)


def run(options: LoadtestOptions) -> None:
    """Put load on a deployment, measure it, verify every token.

    Exit status 1 when anything was lost, repeated, reordered, came after a cancel or did not end, and when a
    threshold was missed.
    """
    has_parts = options.compare is None and (bool(options.agent) or options.fake_provider)
    _check_deployment(options.url, local=options.local, has_parts=has_parts)
    if options.compare is not None:
        _with_packages("compare_files", *options.compare, options.html)
        return
    load = _load(options)
    load.check()
    job = _job(options, load)
    if load.scenario is Scenario.HERD and (not options.local or options.gateways < 2):
        raise InvalidArgument("the herd scenario kills a gateway: it needs --local and --gateways 2 or more")
    raise typer.Exit(0 if _with_packages("execute", job) else 1)


def _load(options: LoadtestOptions) -> Load:
    people = People.parse(options.people)
    any_text = _any_text(options)
    prompts = _with_packages("prompts_of", options.prompts) if any_text else ()
    return Load(
        scenario=_choice(Scenario, options.scenario),
        turns=sum(one.count for one in people) or options.turns,
        rate=options.rate,
        tokens=options.tokens,
        viewers=options.viewers,
        cancel_percent=options.cancel,
        duration_s=options.duration,
        warmup_s=options.warmup,
        pause_s=options.pause,
        patience_s=options.patience or (_LONG_PATIENCE_S if any_text else _PATIENCE_S),
        namespace=options.namespace,
        formats=tuple(_choice(Format, name) for name in options.formats.split(",")),
        processes=options.processes,
        sends_per_s=options.sends,
        any_text=any_text,
        prompts=prompts,
        prompt_count=len(prompts),
        think=options.think,
        arrivals_per_s=options.arrivals,
        ramp_up_s=options.ramp_up,
        people=people,
    )


def _any_text(options: LoadtestOptions) -> bool:
    return options.any_text or options.prompts is not None


def _job(options: LoadtestOptions, load: Load) -> Job:
    key = options.key or ("" if options.token else _DEV_KEY)
    return Job(
        load, _budget(options), options.knee, options.max_turns,
        target=None if options.local else Target.parse(options.url or [], key, options.token),
        local=_local(options, load) if options.local else None,
        overload=OverloadOptions.parse(options.factors, options.rounds), yes=options.yes,
        prices=Prices.parse(options.price), name=options.name, command=command_line(sys.argv),
        json=options.json, html=options.html, quiet=options.quiet,
    )  # fmt: skip


def _budget(options: LoadtestOptions) -> Budget:
    max_errors = options.max_errors
    return Budget(
        options.max_p99_ms, options.max_first_token_p99_ms, options.max_cancel_p99_ms, options.min_tokens_per_s,
        options.max_us_per_token, options.min_goodput,
        DEFAULT_MAX_ERRORS if max_errors is None and _any_text(options) else max_errors,
    )  # fmt: skip


def _local(options: LoadtestOptions, load: Load) -> LocalOptions:
    most_turns = max(load.turns, options.max_turns if load.scenario is Scenario.RAMP else 0)
    provider = tuple(shlex.split(options.provider_options)) if options.fake_provider else None
    return LocalOptions(
        options.gateways, options.workers, most_turns, options.window, options.slots, options.agent, provider
    )


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
