"""What an agent asks of a conversation, what it gets, and the pace at which it is read."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from selfhost_transport.turns.prompt import PartialAnswers, PromptMessage
from selfhost_transport.turns.seed import Seed
from selfhost_transport.turns.tree import SessionTree

SLICE_S: Final = 0.004
"""How long reading holds up the event loop at a time."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an agent wants of a conversation. `seed`: how the application has stored it."""

    partial_answers: PartialAnswers = PartialAnswers.KEEP
    with_reasoning: bool = False
    seed: Seed | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read for it: at least the turn itself as a tree, and the conversation for the model."""

    tree: SessionTree
    prompt: list[PromptMessage]


class YieldTimer:
    """Lets other tasks run between the short steps of a long work."""

    def __init__(self) -> None:
        self._until = time.monotonic() + SLICE_S

    async def keep(self) -> None:
        """After each step."""
        if time.monotonic() >= self._until:
            await asyncio.sleep(0)
            self._until = time.monotonic() + SLICE_S
