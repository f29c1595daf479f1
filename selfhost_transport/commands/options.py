"""Options that several commands of operators have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfhost_transport.commands.operator import Place
from selfhost_transport.settings import ENV_PREFIX, load_settings

Config = Annotated[Path | None, typer.Option(help="TOML file with the configuration.", show_default="none")]
Redis = Annotated[
    str | None,
    typer.Option(
        help="Address of Redis: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://."
    ),
]
Prefix = Annotated[str | None, typer.Option("--redis-prefix", help="First part of every key.")]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Work through the gateway at this address instead of in Redis.",
        envvar=f"{ENV_PREFIX}URL",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="With --url: a key, name:secret, or a token, with the right `console` on all sessions; default: that of `dev`.",
        envvar=f"{ENV_PREFIX}KEY",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def place_of(
    redis: str | None, config: Path | None, prefix: str | None, url: str | None, key: str | None
) -> Place:
    """Where a command with these options works; a key without an address is left alone."""
    return Place(
        load_settings(config, redis=redis, redis_prefix=prefix), url, key if url is not None else None
    )
