"""OpenAI Responses events into channel operations (protocol section 6, write side).

Takes the events of a model's stream as they come, and chunks, which become the items that say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import decoder_openai as o
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.outputs import OutputMessages, OutputOperation
from selfhost_transport.turns.values import Absent, Json, to_text

# Nothing in them that readers do not learn otherwise: how a run ends is its run-end, a part's text is its stream.
_DROPPED: Final = frozenset(
    {
        "response.created",
        "response.in_progress",
        "response.queued",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.content_part.done",
        "response.reasoning_summary_part.done",
        "error",
    }
)
_CONTENT: Final = frozenset({"output_text", "refusal", "reasoning_text"})
_SUMMARY: Final = "reasoning_summary_text"


class OpenAIEncoder(OutputMessages):
    """One pass as OpenAI Responses events."""

    def __init__(
        self, ctx: TurnContext, codec_message_id: str, step_start_serial: str, steer_ids: Sequence[str] = ()
    ) -> None:
        super().__init__(ctx, codec_message_id, step_start_serial, steer_ids)
        self._items = 0
        # Items made of chunks: of each open stream, by its kind and the chunk's id.
        self._made: dict[tuple[str, str], Json] = {}
        # What an approval request repeats of its call: name and arguments, by call id.
        self._calls: dict[str, tuple[str, list[str]]] = {}

    def encode(self, chunk: p.Chunk) -> list[OutputOperation]:
        """The operations for one event or chunk, in order."""
        match chunk:
            case p.Native():
                return self._event(chunk.event)
            case p.TextDelta():
                return self.append("output_text", self._stream_of("text", chunk.id), chunk.delta)
            case p.ReasoningDelta():
                return self.append(_SUMMARY, self._stream_of("reasoning", chunk.id), chunk.delta)
            case p.TextStart():
                return self._open_text(chunk.id)
            case p.ReasoningStart():
                return self._open_reasoning(chunk.id)
            case p.TextEnd():
                return self._end("output_text", "text", chunk.id)
            case p.ReasoningEnd():
                return self._end(_SUMMARY, "reasoning", chunk.id)
            case p.Start() | p.StartStep() | p.FinishStep() | p.Finish() | p.MessageMetadata():
                return []
            case p.Abort() | p.Error():
                return []
            case _:
                return self._tool(chunk)

    # Events as they come from the model

    def _event(self, event: Mapping[str, Any]) -> list[OutputOperation]:
        kind = str(event.get("type"))
        if kind in _DROPPED:
            return []
        match kind:
            case "response.output_item.added":
                return self._item_added(event)
            case "response.output_item.done":
                return [self.discrete({h.KIND: kind}, {"item": _reduced(_item(event))})]
            case "response.content_part.added":
                return self._open_content(event)
            case "response.reasoning_summary_part.added":
                headers = _slot_headers(_SUMMARY, event, "summary_index")
                return self.open(_SUMMARY, _summary_id(event), headers)
            case "function_call_output":
                return [self.discrete({h.KIND: kind}, {"item": _item(event)})]
            case "tool-approval-request":
                return [
                    self._approval(_text(event, "call_id"), _text(event, "name"), _text(event, "arguments"))
                ]
            case _:
                return self._stream_event(kind, event)

    def _stream_event(self, kind: str, event: Mapping[str, Any]) -> list[OutputOperation]:
        """A delta of a stream, or its end."""
        stream, _, what = kind.removeprefix("response.").rpartition(".")
        if stream not in o.STREAM_KINDS or what not in ("delta", "done"):
            raise InvalidArgument(f"an OpenAI event of type {kind!r} cannot be carried")
        if stream == o.ARGUMENTS:
            stream_id = _text(event, "item_id")
        else:
            stream_id = _summary_id(event) if stream == _SUMMARY else _slot_id(event)
        if what == "done":
            return self.close(stream, stream_id)
        return self.append(stream, stream_id, _text(event, "delta"))

    def _item_added(self, event: Mapping[str, Any]) -> list[OutputOperation]:
        item = _item(event)
        if item["type"] != "function_call":
            return [self.discrete({h.KIND: "response.output_item.added"}, {"item": item})]
        if not _text(item, "id"):
            raise InvalidArgument("the arguments of a function call without an id cannot be streamed")
        return self.open(o.ARGUMENTS, _text(item, "id"), _call_headers(item, event.get("output_index")))

    def _open_content(self, event: Mapping[str, Any]) -> list[OutputOperation]:
        part = event.get("part")
        kind = _text(part, "type") if isinstance(part, Mapping) else ""
        if kind not in _CONTENT:
            raise InvalidArgument(f"a content part of type {kind!r} cannot be carried")
        return self.open(kind, _slot_id(event), _slot_headers(kind, event, "content_index"))

    def _approval(self, call_id: str, name: str, arguments: str) -> OutputOperation:
        return self.discrete({h.KIND: "tool-approval-request", o.CALL_ID: call_id, "name": name}, arguments)

    # Chunks, as the items that say the same

    def _open_text(self, chunk_id: str) -> list[OutputOperation]:
        item_id, index = self._new_item("msg")
        item: Json = {
            "id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": [],
        }  # fmt: skip
        self._made["text", chunk_id] = {"type": "message", "id": item_id, "status": "completed"}
        part = {"type": "output_text", "text": "", "annotations": []}
        event = {"item_id": item_id, "output_index": index, "content_index": 0, "part": part}
        return [
            self.discrete({h.KIND: "response.output_item.added"}, {"item": item}),
            *self._open_content(event),
        ]

    def _open_reasoning(self, chunk_id: str) -> list[OutputOperation]:
        item_id, index = self._new_item("rs")
        item: Json = {"id": item_id, "type": "reasoning", "summary": []}
        self._made["reasoning", chunk_id] = {"type": "reasoning", "id": item_id}
        part = {"type": "summary_text", "text": ""}
        event = {"item_id": item_id, "output_index": index, "summary_index": 0, "part": part}
        return [
            self.discrete({h.KIND: "response.output_item.added"}, {"item": item}),
            *self.open(_SUMMARY, _summary_id(event), _slot_headers(_SUMMARY, event, "summary_index")),
        ]

    def _end(self, kind: str, what: str, chunk_id: str) -> list[OutputOperation]:
        ops = self.close(kind, self._stream_of(what, chunk_id))
        return [*ops, self._done(self._made.pop((what, chunk_id)))]

    def _tool(self, chunk: p.Chunk) -> list[OutputOperation]:
        match chunk:
            case p.ToolInputStart():
                return self._open_call(chunk.tool_call_id, chunk.tool_name)
            case p.ToolInputDelta():
                return self._arguments(chunk.tool_call_id, chunk.input_text_delta)
            case p.ToolInputAvailable():
                return self._complete_call(chunk)
            case p.ToolInputError():
                return [*self._complete_call(chunk), self._result(chunk.tool_call_id, chunk.error_text)]
            case p.ToolOutputAvailable():
                return [] if chunk.preliminary else [self._result(chunk.tool_call_id, chunk.output)]
            case p.ToolOutputError():
                return [self._result(chunk.tool_call_id, chunk.error_text)]
            case p.ToolApprovalRequest():
                name, text = self._calls.get(chunk.tool_call_id, ("", []))
                return [self._approval(chunk.tool_call_id, name, "".join(text))]
            case p.ToolOutputDenied():
                return []  # the client's own refusal is what readers show
            case _:
                raise InvalidArgument(f"a {chunk.type} chunk cannot be carried as an OpenAI event")

    def _open_call(self, call_id: str, name: str) -> list[OutputOperation]:
        item_id, index = self._new_item("fc")
        item = {
            "id": item_id, "type": "function_call", "status": "in_progress", "arguments": "", "call_id": call_id,
            "name": name,
        }  # fmt: skip
        self._made["call", call_id] = {"type": "function_call", "id": item_id, "status": "completed"}
        self._calls[call_id] = name, []
        return self.open(o.ARGUMENTS, item_id, _call_headers(item, index))

    def _arguments(self, call_id: str, text: str) -> list[OutputOperation]:
        ops = self.append(o.ARGUMENTS, self._stream_of("call", call_id), text)
        self._calls[call_id][1].append(text)
        return ops

    def _complete_call(self, chunk: p.ToolInputAvailable | p.ToolInputError) -> list[OutputOperation]:
        call_id, ops = chunk.tool_call_id, list[OutputOperation]()
        if ("call", call_id) not in self._made:
            ops += self._open_call(call_id, chunk.tool_name)
            ops += self._arguments(call_id, "{}" if isinstance(chunk.input, Absent) else to_text(chunk.input))
        return [*ops, *self._end(o.ARGUMENTS, "call", call_id)]

    def _result(self, call_id: str, output: Json | Absent) -> OutputOperation:
        text = output if isinstance(output, str) else "" if isinstance(output, Absent) else to_text(output)
        item: Json = {"type": "function_call_output", "call_id": call_id, "output": text}
        return self.discrete({h.KIND: "function_call_output"}, {"item": item})

    def _done(self, item: Json) -> OutputOperation:
        return self.discrete({h.KIND: "response.output_item.done"}, {"item": item})

    def _new_item(self, prefix: str) -> tuple[str, int]:
        """(id, output_index): ids are unique in the session."""
        index = self._items
        self._items += 1
        return f"{prefix}_{self.codec_message_id}_{index}", index

    def _stream_of(self, what: str, chunk_id: str) -> str:
        made = self._made.get((what, chunk_id))
        if not isinstance(made, dict):
            raise InvalidArgument(f"no open {what} part has the id {chunk_id!r}; start it first")
        item_id = str(made["id"])
        return {"text": f"{item_id}:0", "reasoning": f"{item_id}:summary:0"}.get(what, item_id)


def _item(event: Mapping[str, Any]) -> dict[str, Any]:
    item = event.get("item")
    kind = item.get("type") if isinstance(item, Mapping) else None
    if not isinstance(item, Mapping) or kind not in o.ITEM_TYPES:
        raise InvalidArgument(f"an output item of type {kind!r} cannot be carried")
    return dict(item)


def _reduced(item: Mapping[str, Any]) -> dict[str, Any]:
    """A finished item without what its streams already delivered (section 6)."""
    wire = {name: item[name] for name in ("type", "id", "status") if name in item}
    content = item.get("content")
    if item["type"] == "message" and isinstance(content, list) and any(map(_logprobs, content)):
        # One entry per part, so that each stands where the part stands.
        wire["content"] = [
            {"type": part["type"], "logprobs": part["logprobs"]}
            if _logprobs(part)
            else {"type": part["type"]}
            for part in content
        ]
    if item["type"] == "reasoning" and isinstance(item.get("encrypted_content"), str):
        wire["encrypted_content"] = item["encrypted_content"]
    return wire


def _logprobs(part: Mapping[str, Any]) -> bool:
    return part.get("type") == "output_text" and bool(part.get("logprobs"))


def _call_headers(item: Mapping[str, Any], output_index: object) -> dict[str, str]:
    return h.header_map(
        (h.KIND, o.ARGUMENTS), ("item", to_text(dict(item))), ("output_index", _index(output_index))
    )


def _slot_headers(kind: str, event: Mapping[str, Any], index: str) -> dict[str, str]:
    part = event.get("part")
    return h.header_map(
        (h.KIND, kind),
        ("item_id", _text(event, "item_id")),
        ("output_index", _index(event.get("output_index"))),
        (index, _index(event.get(index))),
        ("part", to_text(dict(part)) if isinstance(part, Mapping) else None),
    )


def _slot_id(event: Mapping[str, Any]) -> str:
    return f"{_text(event, 'item_id')}:{event.get('content_index')}"


def _summary_id(event: Mapping[str, Any]) -> str:
    return f"{_text(event, 'item_id')}:summary:{event.get('summary_index')}"


def _index(value: object) -> str | None:
    return str(value) if isinstance(value, int) else None


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""
