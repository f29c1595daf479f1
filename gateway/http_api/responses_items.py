"""Items of a conversation that are not an agent's output, and pages of items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.http_api.responses_errors import refused
from gateway.http_api.responses_read import ResponseReader
from selfhost_transport.turns import decoder as d
from selfhost_transport.turns.agui_runs import Span
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.responses_object import ItemJson
from selfhost_transport.turns.responses_units import as_text
from selfhost_transport.turns.ui import FilePart, TextPart


def input_items(reader: ResponseReader) -> list[ItemJson]:
    """What a response was given, oldest first."""
    question = reader.question() if not reader.id.number else None
    items = list(messages_in(question, Span()))
    return [*items, *messages_in(reader.node, reader.span or Span())]


def messages_in(node: Node | None, span: Span) -> Iterator[ItemJson]:
    """What people said in a part of a turn, or what a question says: messages, outputs of functions, approvals."""
    shown: set[str] = set()
    for record in node.records() if node is not None else ():
        event = record.input
        if event is None or not span.holds(record.serial):
            continue
        if isinstance(event, d.UserPart):
            if record.codec_message_id not in shown and node is not None:
                shown.add(record.codec_message_id)
                yield message_item(node, record.codec_message_id)
            continue
        item_id = f"in_{(record.serial or '').replace('@', '-').replace(':', '-')}"
        match event:
            case d.ToolResolved():
                yield _output(item_id, event.tool_call_id, as_text(event.output), "completed")
            case d.ToolFailed():
                yield _output(item_id, event.tool_call_id, event.text, "incomplete")
            case d.ApprovalAnswered():
                yield {
                    "id": item_id,
                    "type": "mcp_approval_response",
                    "approval_request_id": event.tool_call_id,
                    "approve": event.approved,
                    "reason": event.reason,
                }


def message_item(node: Node, codec_message_id: str) -> ItemJson:
    """A user's message."""
    parts = [
        record.input.part
        for record in node.records()
        if isinstance(record.input, d.UserPart) and record.codec_message_id == codec_message_id
    ]
    content = [shown for part in parts if (shown := _part(part)) is not None]
    return {
        "id": codec_message_id,
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": content,
    }


def page(items: list[ItemJson], after: str | None, limit: int, order: str) -> dict[str, Any]:
    """One page of items. `items`: oldest first. Raises InvalidArgument for a cursor that is none of theirs."""
    ordered = items if order == "asc" else items[::-1]
    if after is not None:
        at = next((number for number, item in enumerate(ordered) if item["id"] == after), None)
        if at is None:
            raise refused("there is no item with this id in the list", "after")
        ordered = ordered[at + 1 :]
    shown = ordered[:limit]
    ends = (
        {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": "", "last_id": ""}
    )
    return {"object": "list", "data": shown, **ends, "has_more": len(ordered) > limit}


def _output(item_id: str, call: str, text: str, status: str) -> ItemJson:
    return {"id": item_id, "type": "function_call_output", "call_id": call, "output": text, "status": status}


def _part(part: object) -> ItemJson | None:
    match part:
        case TextPart(text):
            return {"type": "input_text", "text": text}
        case FilePart(url, kind) if kind.startswith("image/"):
            return {"type": "input_image", "image_url": url, "detail": "auto"}
        case FilePart(url, _):
            return {"type": "input_file", "file_url": url}
    return None
