"""Items of a conversation that are not an agent's output, and pages of items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.http_api.responses_errors import refused
from gateway.http_api.responses_read import ResponseReader
from selfhost_transport.turns import decoder as d
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.responses_object import ItemJson, ResponseId, item_id, items_json, status_of
from selfhost_transport.turns.responses_units import ResponseKind, ResponseUnits
from selfhost_transport.turns.run_spans import RunSpan
from selfhost_transport.turns.runs import RunState
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import FilePart, TextPart
from selfhost_transport.turns.values import as_text
from selfhost_transport.turns.view import TreeView


def input_items(reader: ResponseReader) -> list[ItemJson]:
    """What a response was given, oldest first."""
    question = reader.question() if not reader.id.number else None
    items = list(messages_in(question, RunSpan()))
    return [*items, *messages_in(reader.node, reader.span or RunSpan())]


def messages_in(node: Node | None, span: RunSpan) -> Iterator[ItemJson]:
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
        said = f"in_{(record.serial or '').replace('@', '-').replace(':', '-')}"
        match event:
            case d.ToolResolved():
                yield _output(said, event.tool_call_id, as_text(event.output), "completed")
            case d.ToolFailed():
                yield _output(said, event.tool_call_id, event.text, "incomplete")
            case d.ApprovalAnswered():
                yield {
                    "id": said,
                    "type": "mcp_approval_response",
                    "approval_request_id": _requests(node).get(event.tool_call_id, event.tool_call_id),
                    "approve": event.approved,
                    "reason": event.reason,
                }


def conversation_items(tree: SessionTree, view: TreeView) -> list[ItemJson]:
    """All items of the messages that are shown, oldest first."""
    items: list[ItemJson] = []
    seen: set[str] = set()
    for shown in view.messages():
        node = tree.owner_of(shown.codec_message_id)
        if node is None or node.key in seen:
            continue
        if node.run is None:
            items.append(message_item(node, shown.codec_message_id))
            continue
        seen.add(node.key)
        items += _items_of_turn(tree.session or "", node, node.run)
    return items


def _items_of_turn(session: str, node: Node, run: RunState) -> Iterator[ItemJson]:
    for number in range(len(run.suspensions) + 1):
        response_id = ResponseId(session, run.run_id, number)
        span = response_id.span(node) or RunSpan()
        yield from messages_in(node, span)
        units = ResponseUnits(node, span)
        status = status_of(run.info(), span, units)
        yield from items_json(units, response_id.base, status)


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


def _requests(node: Node | None) -> dict[str, str]:
    """The ids of the approval requests of a turn, by call."""
    found: dict[str, str] = {}
    run = node.run if node is not None else None
    for number in range(len(run.suspensions) if run is not None else 0):
        response_id = ResponseId("", run.run_id if run is not None else "", number)
        for index, unit in enumerate(ResponseUnits(node, response_id.span(node) or RunSpan()).all):
            if unit.kind is ResponseKind.APPROVAL:
                found[unit.key] = item_id(unit, response_id.base, index)
    return found


def _output(name: str, call: str, text: str, status: str) -> ItemJson:
    return {"id": name, "type": "function_call_output", "call_id": call, "output": text, "status": status}


def _part(part: object) -> ItemJson | None:
    match part:
        case TextPart(text):
            return {"type": "input_text", "text": text}
        case FilePart(url, kind) if kind.startswith("image/"):
            return {"type": "input_image", "image_url": url, "detail": "auto"}
        case FilePart(url, _):
            return {"type": "input_file", "file_url": url}
    return None
