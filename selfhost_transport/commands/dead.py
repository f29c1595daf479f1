"""`dead list` and `dead requeue`: turns that no worker survived.

Every command imports this module, for its options: the store, half of the time of a short command, only when it is used.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from selfhost_transport.settings import Settings, load_settings

if TYPE_CHECKING:
    from selfhost_transport.store.dead_letters import DeadLetter
    from selfhost_transport.store.turn_store import Accepted

Config = Annotated[str | None, typer.Option(help="TOML file with the configuration.")]
Redis = Annotated[
    str | None,
    typer.Option(
        help="Address of Redis: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://."
    ),
]
Prefix = Annotated[str | None, typer.Option("--redis-prefix", help="First part of every key.")]

app = typer.Typer(help="Turns that failed because their workers were lost.", no_args_is_help=True)


@app.command("list")
def list_letters(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    redis: Redis = None,
    config: Config = None,
    redis_prefix: Prefix = None,
) -> None:
    """Show all dead letters, oldest first."""
    letters = asyncio.run(_all(_settings(redis, config, redis_prefix)))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(letter) for letter in letters]))
        return
    for letter in letters:
        when = datetime.fromtimestamp(letter.time_ms / 1000, UTC).isoformat(timespec="seconds")
        typer.echo(
            f"{letter.letter_id}  {when}  session={letter.session} turn={letter.turn_id} "
            f"attempts={letter.attempts} worker={letter.worker}"
        )
    if not letters:
        typer.echo("no dead letters")


@app.command()
def requeue(
    letter: Annotated[str, typer.Argument(help="Id of the letter, as `dead list` shows it.")],
    redis: Redis = None,
    config: Config = None,
    redis_prefix: Prefix = None,
) -> None:
    """Send a dead letter's message again, as a new turn with the same owner."""
    accepted = asyncio.run(_requeue(_settings(redis, config, redis_prefix), letter))
    typer.echo(f"turn {accepted.turn_id} is {accepted.status}")


def _settings(redis: str | None, config: str | None, prefix: str | None) -> Settings:
    from pathlib import Path

    return load_settings(Path(config) if config else None, redis=redis, redis_prefix=prefix)


async def _all(settings: Settings) -> list[DeadLetter]:
    from selfhost_transport.commands.stores import opened_stores

    async with opened_stores(settings) as stores:
        return await stores.dead_letters.all()


async def _requeue(settings: Settings, letter: str) -> Accepted:
    from selfhost_transport.commands.stores import opened_stores

    async with opened_stores(settings) as stores:
        return await stores.dead_letters.requeue(letter)
