"""What AG-UI's clients read that is no run: CopilotKit's info, and a thread as TanStack AI's client shows it."""

from __future__ import annotations

from typing import Any, Final

from gateway.services import Services
from selfhost_transport.turns.agui_messages import messages_of
from selfhost_transport.turns.agui_stream import VERSION
from selfhost_transport.turns.run_spans import chunks_of_run, newest_span
from selfhost_transport.turns.tree import SessionTree

_DEFAULT: Final = "default"


def info(services: Services) -> dict[str, Any]:
    """The agents, by the ids that CopilotKit's client may name. The thread's namespace says which one answers."""
    names = sorted({rule.agent for rule in services.settings.namespaces if rule.agent is not None})
    agents = {
        name: {"name": name, "description": "the agent of the thread's namespace", "className": "HttpAgent"}
        for name in (_DEFAULT, *names)
    }
    return {"version": VERSION, "agents": agents, "audioFileTranscriptionEnabled": False, "mode": "sse"}


def run_id_of(turn_id: str, thread: str) -> str:
    """A run id that says what it is of: a GET that joins a run names nothing else."""
    return f"{turn_id}@{thread}"


def read_run_id(run_id: str) -> tuple[str | None, str | None]:
    """The turn and the thread of such a run id; None twice for one that a client made."""
    turn_id, at, thread = run_id.partition("@")
    return (turn_id, thread) if at and turn_id and thread else (None, None)


def hydration(tree: SessionTree, thread: str, turn_id: str | None, limit: int) -> dict[str, Any]:
    """The newest messages, without those of the answer that is being written: its run is `activeRun`."""
    node = tree.run_node(turn_id) if turn_id is not None else None
    running = {message for message, _ in chunks_of_run(node, newest_span(node))}
    found: list[dict[str, Any]] = []
    for message in messages_of(tree):
        role, parts = message["role"], _parts(message)
        if message["id"].partition(":r")[0] in running or message["id"] in running:
            continue
        if role == "user":
            found.append({"id": message["id"], "role": role, "parts": parts})
        elif role == "tool" or (found and found[-1]["role"] == "assistant" and found[-1]["id"] is None):
            _join(found, message, parts)
        else:
            name = None if role == "reasoning" else message["id"]
            found.append({"id": name, "role": "assistant", "parts": parts})
    for shown in found:
        shown["id"] = shown["id"] or "reasoning"
    active = {"runId": run_id_of(turn_id, thread)} if turn_id is not None else None
    return {"messages": found[-limit:], "activeRun": active, "interrupts": None}


def _join(found: list[dict[str, Any]], message: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    """A tool's result, and what follows reasoning, is part of the message before it."""
    if not found:
        return
    found[-1]["parts"] += parts
    if message["role"] == "assistant":
        found[-1]["id"] = message["id"]


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if message["role"] == "reasoning":
        return [{"type": "thinking", "content": content}]
    if message["role"] == "tool":
        call = message["toolCallId"]
        return [{"type": "tool-result", "toolCallId": call, "content": content, "state": "complete"}]
    texts = [{"type": "text", "content": content}] if isinstance(content, str) else _files(content or [])
    return texts + [
        {
            "type": "tool-call",
            "id": call["id"],
            "name": call["function"]["name"],
            "arguments": call["function"]["arguments"],
            "state": "input-complete",
        }
        for call in message.get("toolCalls", ())
    ]


def _files(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"type": "text", "content": part["text"]} if part["type"] == "text" else dict(part) for part in parts
    ]
