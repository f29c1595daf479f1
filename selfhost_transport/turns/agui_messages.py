"""A conversation as AG-UI's messages: what a snapshot holds. Ids are those that the streams of its turns have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from selfhost_transport.turns.agui_units import ENCRYPTED_VALUE, AguiKind, AguiUnit, AguiUnits
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import FilePart, TextPart, UIMessage
from selfhost_transport.turns.ui_stream import chunks_of_turn
from selfhost_transport.turns.view import TreeView

USER: Final = "user"
MAX_SNAPSHOT: Final = 8_388_608
"""The most bytes of messages in a snapshot: clients refuse an event of more than 10 MB."""


def messages_of(tree: SessionTree, turn_id: str | None = None) -> list[dict[str, Any]]:
    """The messages of the shown branch, and of one turn, wherever that is; the newest, if all were too many bytes."""
    kept: list[dict[str, Any]] = []
    size = 0
    for message in reversed(_all_messages(tree, turn_id)):
        size += len(orjson.dumps(message))
        if kept and size > MAX_SNAPSHOT:
            break
        kept.append(message)
    return kept[::-1]


def _all_messages(tree: SessionTree, turn_id: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    by_turn: dict[str, dict[str, list[AguiUnit]]] = {}
    shown = TreeView(tree).messages()
    for item in shown:
        if item.message.role == USER:
            found.append(_question(item.codec_message_id, item.message))
            continue
        turn = tree.turn_of(item.codec_message_id)
        if turn is None:
            continue
        if turn not in by_turn:
            by_turn[turn] = _by_message(tree, turn)
        found += _answer(item.codec_message_id, by_turn[turn].get(item.codec_message_id, ()))
    if turn_id is not None and turn_id not in by_turn:
        for message_id, units in _by_message(tree, turn_id).items():
            found += _answer(message_id, units)
    return found


def _by_message(tree: SessionTree, turn_id: str) -> dict[str, list[AguiUnit]]:
    found: dict[str, list[AguiUnit]] = {}
    for unit in AguiUnits(chunks_of_turn(tree.run_node(turn_id))).all:
        found.setdefault(unit.codec_message_id, []).append(unit)
    return found


def _question(message_id: str, message: UIMessage) -> dict[str, Any]:
    parts = [part for part in message.parts if isinstance(part, TextPart | FilePart)]
    if any(isinstance(part, FilePart) for part in parts):
        return {"id": message_id, "role": USER, "content": [_part(part) for part in parts]}
    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    return {"id": message_id, "role": USER, "content": text}


def _part(part: TextPart | FilePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind = part.media_type.partition("/")[0]
    named = kind if kind in ("image", "audio", "video") else "document"
    return {"type": named, "source": {"type": "url", "value": part.url, "mimeType": part.media_type}}


def _answer(message_id: str, units: Iterable[AguiUnit]) -> list[dict[str, Any]]:
    before: list[dict[str, Any]] = []
    after: list[dict[str, Any]] = []
    text: list[str] = []
    calls: list[dict[str, Any]] = []
    for unit in units:
        if unit.kind is AguiKind.TEXT:
            text.append(unit.text)
        elif unit.kind is AguiKind.REASONING:
            before.append({"id": unit.id, "role": "reasoning", "content": unit.text})
        elif unit.event.get("type") == ENCRYPTED_VALUE:
            before[-1]["encryptedValue"] = unit.event["encryptedValue"]
        elif unit.kind is AguiKind.CALL:
            function = {"name": unit.name, "arguments": unit.text}
            calls.append({"id": unit.id, "type": "function", "function": function})
        elif unit.event.get("type") == "TOOL_CALL_RESULT":
            event = unit.event
            kept = {"id": event["messageId"], "role": "tool", "toolCallId": event["toolCallId"]}
            after.append({**kept, "content": event["content"]})
    if not text and not calls:
        return [*before, *after]
    message: dict[str, Any] = {"id": message_id, "role": "assistant"}
    if text:
        message["content"] = "".join(text)
    if calls:
        message["toolCalls"] = calls
    return [*before, message, *after]
