"""Messages of the OpenAI Responses codec, read as the chunks of a UI message stream (protocol section 6).

So that a session whose agent or client uses that codec of the JS SDK reads like any other. What has no counterpart
in a UI message (item ids, encrypted reasoning, log probabilities) is left out; there is no life-cycle repair.
"""

from __future__ import annotations

from typing import Final

from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.headers import STREAM_ID, Headers
from selfhost_transport.turns.values import ABSENT, Absent, Json, from_text

_TEXT: Final = frozenset({"output_text", "refusal"})
_REASONING: Final = frozenset({"reasoning_text", "reasoning_summary_text"})
ARGUMENTS: Final = "function_call_arguments"
STREAM_KINDS: Final = _TEXT | _REASONING | {ARGUMENTS}
# Items of the model, and those an agent or client adds.
MODEL_ITEMS: Final = frozenset({"message", "reasoning", "function_call"})
ITEM_TYPES: Final = MODEL_ITEMS | {"function_call_output"}
# Discrete messages whose payload is an item.
_ITEM_KINDS: Final = frozenset(
    {"response.output_item.added", "response.output_item.done", "function_call_output"}
)

# Kinds that no other codec writes.
OWN_KINDS: Final = STREAM_KINDS | _ITEM_KINDS

CALL_ID: Final = "call_id"
INPUT_TEXT: Final = "input_text"


def decode_stream_start(headers: Headers) -> p.TextStart | p.ReasoningStart | p.ToolInputStart | None:
    """The chunk that opens a stream message, or None for an unknown kind."""
    stream_id = headers.get(STREAM_ID) or headers.field("item_id") or ""
    if headers.kind in _TEXT:
        return p.TextStart(stream_id)
    if headers.kind in _REASONING:
        return p.ReasoningStart(stream_id)
    if headers.kind != ARGUMENTS:
        return None
    item = _item(from_text(headers.field("item") or ""))
    return p.ToolInputStart(_text(item, CALL_ID) or stream_id, _text(item, "name"))


def decode_output(headers: Headers, payload: Json | Absent) -> p.Chunk | None:
    """The chunk of a discrete output: a tool's result; items that come and go tell nothing new."""
    if headers.kind != "function_call_output" or not isinstance(payload, dict):
        return None
    item = _item(payload.get("item"))
    output = item.get("output", ABSENT)
    # The model's own form is JSON text; a UI message holds the value.
    value = from_text(output) if isinstance(output, str) else ABSENT
    return p.ToolOutputAvailable(_text(item, CALL_ID), output if isinstance(value, Absent) else value)


def decode_event(headers: Headers, payload: Json | Absent) -> p.Native | None:
    """A discrete output as the event it was written from; None if it is not of this codec."""
    if headers.kind in _ITEM_KINDS and isinstance(payload, dict):
        return p.Native({"type": headers.kind, "item": payload.get("item")})
    if headers.kind != "tool-approval-request" or headers.field(CALL_ID) is None:
        return None
    arguments = payload if isinstance(payload, str) else ""
    call_id, name = headers.field(CALL_ID), headers.field("name") or ""
    return p.Native({"type": headers.kind, CALL_ID: call_id, "name": name, "arguments": arguments})


def _item(value: Json | Absent) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _text(item: dict[str, Json], name: str) -> str:
    value = item.get(name)
    return value if isinstance(value, str) else ""
