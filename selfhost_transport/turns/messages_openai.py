"""Messages of the OpenAI Responses codec: the records of one message folded into its items (protocol section 6).

Items are rebuilt from the whole message, so order of arrival and paging do not matter; a stream is one record.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import decoder as d
from selfhost_transport.turns import decoder_openai as o
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.calls import CLOSED_CALL
from selfhost_transport.turns.record import Record
from selfhost_transport.turns.ui import TextPart, UIMessage
from selfhost_transport.turns.values import Absent, Json, from_text, to_text

DENIED_OUTPUT: Final = "Tool execution was not approved."
# The field that a stream of each kind fills in its part.
_FIELDS: Final = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text"}

Item = dict[str, Any]
"""An item of the Responses API; its shape is the API's."""


@dataclass(slots=True, frozen=True)
class OpenAIMessage(UIMessage):
    """A message as items of the Responses API; role and parts read like those of any other message.

    `tool_call_states`: by call id, what was asked and answered about it: `approval` pending, approved or denied,
    `result` ok or failed, and the `name`, `arguments` and `reason` that came with it.
    """

    items: tuple[Item, ...] = ()
    tool_call_states: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """`{role, items, toolCallStates?}`, the form of the JS SDK."""
        wire: dict[str, Any] = {"role": self.role, "items": list(self.items)}
        if self.tool_call_states:
            wire["toolCallStates"] = {key: dict(state) for key, state in self.tool_call_states.items()}
        return wire


def fold(message: UIMessage, records: Iterable[Record]) -> OpenAIMessage:
    """The message that the records of one codec message, in order, amount to."""
    items = _Items()
    for record in records:
        items.add(record)
    return OpenAIMessage(
        message.id, message.role, message.parts, message.metadata, items.finished(), items.states
    )


def responses_input(messages: Iterable[UIMessage]) -> list[Any]:
    """A conversation as the `input` of a Responses request; function calls without a result are closed (CAN-23)."""
    found = [item for message in messages if isinstance(message, OpenAIMessage) for item in message.items]
    answered = {item.get("call_id") for item in found if item["type"] == "function_call_output"}
    closed: list[Item] = []
    for item in found:
        closed.append(item)
        if item["type"] == "function_call" and item.get("call_id") not in answered:
            closed.append(_output(item.get("call_id"), CLOSED_CALL))
    return closed


class _Items:
    """The items of one message while they are put together."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, str]] = {}
        self._items: list[Item] = []
        self._by_id: dict[str, Item] = {}
        # Parts that were opened at an index, by the item's id and the field they belong to.
        self._slots: dict[tuple[str, str], dict[int, Item]] = {}

    def add(self, record: Record) -> None:
        """Take the next record."""
        if record.input is not None:
            self._add_input(record.input)
        elif record.stream is not None:
            self._add_stream(record.headers, str(record.stream))
        for chunk in record.chunks:
            if isinstance(chunk, p.Native):
                self._add_event(chunk.event)

    def finished(self) -> tuple[Item, ...]:
        """The items; of parts with an index, those without a gap before them."""
        for (item_id, name), slots in self._slots.items():
            dense: list[Item] = []
            while len(dense) in slots:
                dense.append(slots[len(dense)])
            self._by_id[item_id][name] = dense
        return tuple(self._items)

    # What the agent wrote

    def _add_stream(self, headers: h.Headers, text: str) -> None:
        if headers.kind == o.ARGUMENTS:
            item = _json(headers, "item")
            self._add_item(item)
            known = self._by_id.get(str(item.get("id")))
            if known is not None:
                known["arguments"] = text or known.get("arguments", "")
            return
        part, item_id = _json(headers, "part"), headers.field("item_id")
        if item_id is None:
            return
        if headers.kind == "reasoning_summary_text":
            self._fill(item_id, "reasoning", "summary", _index(headers, "summary_index"), part, "text", text)
        elif headers.kind in _FIELDS:
            owner = "reasoning" if headers.kind == "reasoning_text" else "message"
            at = _index(headers, "content_index")
            self._fill(item_id, owner, "content", at, part, _FIELDS[headers.kind], text)

    def _fill(
        self, item_id: str, owner: str, name: str, at: int, part: Item, text_field: str, text: str
    ) -> None:
        """Put a part where it belongs; an item whose own message has not been seen is made (a late joiner)."""
        self._add_item(_container(owner, item_id))
        if self._by_id[item_id]["type"] == owner:
            slots = self._slots.setdefault((item_id, name), {})
            slots[at] = {**part, text_field: text or part.get(text_field, "")}

    def _add_event(self, event: Mapping[str, Any]) -> None:
        item = event.get("item")
        match event.get("type"):
            case "response.output_item.added" if isinstance(item, dict):
                self._add_item(item)
            case "response.output_item.done" if isinstance(item, dict):
                self._finish(item)
            case "function_call_output" if isinstance(item, dict):
                self._items.append(copy.deepcopy(item))
            case "tool-approval-request":
                asked = {"name": str(event.get("name", "")), "arguments": str(event.get("arguments", ""))}
                self._note(str(event.get("call_id", "")), approval="pending", **asked)

    def _add_item(self, item: Item) -> None:
        item_id = item.get("id")
        if item.get("type") not in o.MODEL_ITEMS or item_id in self._by_id:
            return
        known = copy.deepcopy(item)
        self._items.append(known)
        if isinstance(item_id, str):
            self._by_id[item_id] = known

    def _finish(self, done: Item) -> None:
        item = self._by_id.get(str(done.get("id")))
        if item is None or item["type"] != done.get("type"):
            return
        item.pop("status", None)
        item.update({name: done[name] for name in ("status", "encrypted_content") if name in done})
        slots = self._slots.get((str(done["id"]), "content"), {})
        for n, part in enumerate(done.get("content") or ()):
            if (
                isinstance(part, dict)
                and "logprobs" in part
                and slots.get(n, {}).get("type") == "output_text"
            ):
                slots[n]["logprobs"] = part["logprobs"]

    # What clients wrote

    def _add_input(self, event: d.InputEvent) -> None:
        match event:
            case d.UserPart(part=TextPart(text)):
                self._add_text(text)
            case d.ToolResolved():
                output = event.output
                value = "" if isinstance(output, Absent) else output
                self._answer(event.tool_call_id, value)
                self._note(event.tool_call_id, result="ok")
            case d.ToolFailed():
                self._answer(event.tool_call_id, event.text)
                self._note(event.tool_call_id, result="failed")
            case d.ApprovalAnswered():
                reason = {} if event.reason is None else {"reason": event.reason}
                if not event.approved:
                    self._answer(event.tool_call_id, DENIED_OUTPUT if event.reason is None else event.reason)
                self._note(event.tool_call_id, approval="approved" if event.approved else "denied", **reason)

    def _add_text(self, text: str) -> None:
        part = {"type": "input_text", "text": text}
        for item in self._items:
            if item["type"] == "message":
                item["content"].append(part)
                return
        self._items.append({"type": "message", "role": "user", "content": [part]})

    def _answer(self, call_id: str, output: Json) -> None:
        """The newest answer to a call replaces the one before."""
        # The API takes text, or a list of content parts; another value is given as its JSON text.
        item = _output(call_id, output if isinstance(output, str | list) else to_text(output))
        for n, known in enumerate(self._items):
            if known["type"] == "function_call_output" and known.get("call_id") == call_id:
                self._items[n] = item
                return
        self._items.append(item)

    def _note(self, call_id: str, **state: str) -> None:
        self.states.setdefault(call_id, {}).update(state)


def _output(call_id: object, output: object) -> Item:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def _container(owner: str, item_id: str) -> Item:
    if owner == "reasoning":
        return {"id": item_id, "type": "reasoning", "summary": []}
    return {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}


def _json(headers: h.Headers, name: str) -> Item:
    value = from_text(headers.field(name) or "")
    return value if isinstance(value, dict) else {}


def _index(headers: h.Headers, name: str) -> int:
    value = from_text(headers.field(name) or "")
    return value if isinstance(value, int) else 0
