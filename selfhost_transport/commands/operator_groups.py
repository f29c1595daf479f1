"""`dead`, `webhooks`, `push`, `workers`: groups of commands for operators."""

from __future__ import annotations

from typing import Annotated

import typer

from selfhost_transport.commands.operating import PUSH
from selfhost_transport.commands.operator import (
    run_dead,
    run_deliver_again,
    run_drain,
    run_requeue,
    run_undelivered,
    run_workers,
)
from selfhost_transport.commands.options import AsJson, Config, Key, Prefix, Redis, Url, place_of
from selfhost_transport.wire import vapid

Letter = Annotated[str | None, typer.Argument(help="Id of the letter, as `dead` shows it.")]
Everything = Annotated[bool, typer.Option("--all", help="All that were given up.")]

dead = typer.Typer(help="Turns that failed because their workers were lost.", no_args_is_help=True)
webhooks = typer.Typer(help="Events that a webhook has given up.", no_args_is_help=True)
push = typer.Typer(help="Web push: its key, and what could not be delivered.", no_args_is_help=True)
workers = typer.Typer(help="Workers that run.", no_args_is_help=True)


@dead.command("list")
def list_letters(
    as_json: AsJson = False, url: Url = None, key: Key = None, redis: Redis = None, config: Config = None,
    redis_prefix: Prefix = None,
) -> None:  # fmt: skip
    """Show all dead letters, oldest first."""
    run_dead(place_of(redis, config, redis_prefix, url, key), as_json=as_json)


@dead.command()
def requeue(
    letter: Annotated[str, typer.Argument(help="Id of the letter, as `dead list` shows it.")],
    url: Url = None, key: Key = None, redis: Redis = None, config: Config = None, redis_prefix: Prefix = None,
) -> None:  # fmt: skip
    """Send a dead letter's message again, as a new turn with the same owner."""
    run_requeue(place_of(redis, config, redis_prefix, url, key), letter)


@webhooks.command("dead")
def dead_of_webhook(
    name: Annotated[str, typer.Argument(help="Name of the webhook in the configuration.")],
    as_json: AsJson = False, url: Url = None, key: Key = None, redis: Redis = None, config: Config = None,
    redis_prefix: Prefix = None,
) -> None:  # fmt: skip
    """Show the events that its address did not accept, oldest first; they are kept for 30 days."""
    run_undelivered(place_of(redis, config, redis_prefix, url, key), name, as_json=as_json)


@webhooks.command("requeue")
def requeue_of_webhook(
    name: Annotated[str, typer.Argument(help="Name of the webhook in the configuration.")],
    letter: Letter = None, everything: Everything = False, url: Url = None, key: Key = None, redis: Redis = None,
    config: Config = None, redis_prefix: Prefix = None,
) -> None:  # fmt: skip
    """Deliver an event again, under its first `webhook-id`."""
    place = place_of(redis, config, redis_prefix, url, key)
    run_deliver_again(place, name, letter, everything=everything)


@push.command("keys")
def push_keys() -> None:
    """Print a new VAPID key as the configuration has it. Browsers have to subscribe again after a change."""
    private = vapid.new_private_key()
    typer.echo(
        f'[push]\nprivate_key = "{private}"\nsubject = "mailto:you@example.com"\n'
        f"# What browsers get, from the gateway: {vapid.public_key_of(private)}"
    )


@push.command("dead")
def dead_pushes(
    as_json: AsJson = False, url: Url = None, key: Key = None, redis: Redis = None, config: Config = None,
    redis_prefix: Prefix = None,
) -> None:  # fmt: skip
    """Show the pushes that were given up, oldest first; they are kept for 30 days."""
    run_undelivered(place_of(redis, config, redis_prefix, url, key), PUSH, as_json=as_json)


@push.command("requeue")
def requeue_push(
    letter: Letter = None, everything: Everything = False, url: Url = None, key: Key = None, redis: Redis = None,
    config: Config = None, redis_prefix: Prefix = None,
) -> None:  # fmt: skip
    """Deliver a push again."""
    run_deliver_again(place_of(redis, config, redis_prefix, url, key), PUSH, letter, everything=everything)


@workers.command("list")
def list_workers(
    as_json: AsJson = False, url: Url = None, key: Key = None, redis: Redis = None, config: Config = None,
    redis_prefix: Prefix = None,
) -> None:  # fmt: skip
    """Show the workers that serve agents of the configuration."""
    run_workers(place_of(redis, config, redis_prefix, url, key), as_json=as_json)


@workers.command()
def drain(
    worker: Annotated[str, typer.Argument(help="Id of the worker, as `workers list` shows it.")],
    url: Url = None, key: Key = None, redis: Redis = None, config: Config = None, redis_prefix: Prefix = None,
) -> None:  # fmt: skip
    """Have a worker finish or hand over its turns, and end."""
    run_drain(place_of(redis, config, redis_prefix, url, key), worker)
