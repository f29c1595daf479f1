"""`selfhost-transport fake-provider`, called by name."""

from __future__ import annotations

from collections.abc import Sequence

from agent_worker.fake_provider.behaviour import Behaviour
from agent_worker.fake_provider.server import run_provider


def run(
    first_token: str, rate: str, tokens: str, faults: Sequence[str], seed: int, host: str, port: int, key: str
) -> None:
    """Read the options and serve. Raises InvalidArgument, OSError."""
    run_provider(Behaviour.parse(first_token, rate, tokens, faults, seed), host, port, key)
