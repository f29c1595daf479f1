"""Providers' rules about the order of messages; each check gives the reason of a refusal, or None."""

from __future__ import annotations

from typing import Any


def chat(body: dict[str, Any]) -> str | None:
    """Chat Completions: after an assistant's calls comes a tool message for each, before anything else."""
    waiting: set[str] = set()
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return "a tool message must follow a message with its call"
            waiting.discard(message["tool_call_id"])
            continue
        if waiting:
            return f"no result for the calls {waiting}"
        calls = message.get("tool_calls") or []
        if not calls and not message.get("content"):
            return "content is required"
        waiting = {call["id"] for call in calls}
    return f"no result for the calls {waiting}" if waiting else None


def responses(body: dict[str, Any]) -> str | None:
    """Responses: every function call has its output, and the other way round."""
    called = [item["call_id"] for item in body["input"] if item.get("type") == "function_call"]
    answered = [item["call_id"] for item in body["input"] if item.get("type") == "function_call_output"]
    return None if sorted(called) == sorted(answered) else f"calls {called}, outputs {answered}"


def claude(body: dict[str, Any]) -> str | None:
    """Messages: user and assistant in turns, and the results of all calls at the head of the next message."""
    waiting: set[str] = set()
    expected = "user"
    for message in body["messages"]:
        if message["role"] != expected:
            return f"a message of the {expected} was expected"
        expected = "assistant" if expected == "user" else "user"
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not blocks or any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            return "text content blocks must not be empty"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if {block.get("tool_use_id") for block in blocks[: len(results)]} != waiting or set(
            results
        ) != waiting:
            return f"the calls {waiting} have the results {results}"
        waiting = {block["id"] for block in blocks if block["type"] == "tool_use"}
        if any(not isinstance(block["input"], dict) for block in blocks if block["type"] == "tool_use"):
            return "input must be an object"
    return f"no result for the calls {waiting}" if waiting else None
