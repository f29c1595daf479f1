"""Token counts out of what providers report: an object of their library, or the JSON itself; any of it may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_worker.output.usage import Usage


def member(value: Any, *path: str) -> Any:
    """A member of a member, of objects and mappings alike; None where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def count(value: Any, *path: str) -> int:
    """A count; 0 where there is none."""
    found = member(value, *path)
    return found if type(found) is int and found > 0 else 0


def of_chat(reported: Any) -> Usage:
    """`usage` of Chat Completions."""
    return Usage(
        count(reported, "prompt_tokens"),
        count(reported, "completion_tokens"),
        count(reported, "prompt_tokens_details", "cached_tokens"),
        count(reported, "completion_tokens_details", "reasoning_tokens"),
    )


def of_responses(reported: Any) -> Usage:
    """`usage` of a response."""
    return Usage(
        count(reported, "input_tokens"),
        count(reported, "output_tokens"),
        count(reported, "input_tokens_details", "cached_tokens"),
        count(reported, "output_tokens_details", "reasoning_tokens"),
    )


def of_messages(reported: Any, before: Usage | None) -> Usage:
    """`usage` of a message's start or end, which repeats what has changed. Anthropic counts what is cached apart."""
    before = before or Usage()
    cached = count(reported, "cache_read_input_tokens")
    read = count(reported, "input_tokens") + cached + count(reported, "cache_creation_input_tokens")
    return Usage(
        read or before.input_tokens,
        count(reported, "output_tokens") or before.output_tokens,
        cached or before.cached_input_tokens,
        before.reasoning_tokens,
    )
