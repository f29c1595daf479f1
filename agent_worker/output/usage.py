"""What model calls used: counted by the adapters, written into the metadata of the message, added up for metrics."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from selfhost_transport.turns.values import Json


@dataclass(slots=True, frozen=True)
class Usage:
    """Tokens of model calls. Cached ones are part of the input, those of reasoning part of the output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def __bool__(self) -> bool:
        return bool(
            self.input_tokens or self.output_tokens or self.cached_input_tokens or self.reasoning_tokens
        )

    def to_json(self) -> dict[str, Json]:
        """As `usage` of a message's metadata; without the counts that are 0, except for the two main ones."""
        more = {"cachedInputTokens": self.cached_input_tokens, "reasoningTokens": self.reasoning_tokens}
        return {
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "totalTokens": self.input_tokens + self.output_tokens,
            **{name: count for name, count in more.items() if count},
        }


class UsageCount:
    """Adds up what is noted, for itself and for what it is a part of."""

    def __init__(self, whole: UsageCount | None = None) -> None:
        self.total = Usage()
        self._whole = whole

    def add(self, usage: Usage) -> None:
        """Count one model call."""
        self.total += usage
        if self._whole is not None:
            self._whole.add(usage)


counting: ContextVar[UsageCount | None] = ContextVar("usage_count", default=None)
"""Where the model calls of this task are counted: the message that is being written."""


def note_usage(usage: Usage) -> None:
    """Count a model call for the message that is being written; nothing happens where none is."""
    count = counting.get()
    if count is not None and usage:
        count.add(usage)
