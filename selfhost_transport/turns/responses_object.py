"""Responses and their items as OpenAI's clients read them, made from turns."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from selfhost_transport.errors import ErrorInfo, InvalidArgument
from selfhost_transport.turns.client_input import HEADER as CLIENT_INPUT
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.record import Record
from selfhost_transport.turns.responses_units import ResponseKind, ResponseUnit, ResponseUnits
from selfhost_transport.turns.run_spans import RunSpan
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.values import from_text

ItemJson: TypeAlias = dict[str, Any]

_PREFIX: Final = "resp_"
SERVER_LABEL: Final = "agent"
"""The server of a call that has to be allowed: the turn's agent runs it."""
ECHOED: Final = (
    "instructions", "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls", "prompt_cache_key",
    "reasoning", "safety_identifier", "service_tier", "temperature", "text", "tool_choice", "tools", "top_logprobs",
    "top_p", "truncation", "user",
)  # fmt: skip
"""What a request says to the agent, and its response repeats."""
_DEFAULTS: Final[Mapping[str, Any]] = {
    "instructions": None, "max_output_tokens": None, "metadata": {}, "parallel_tool_calls": True,
    "temperature": None, "tool_choice": "auto", "tools": [], "top_p": None,
}  # fmt: skip
_REASONS: Final = {"length": "max_output_tokens", "content-filter": "content_filter"}
_RATE_LIMITED: Final = range(42900, 43000)


@dataclass(frozen=True, slots=True)
class ResponseId:
    """Which response: the part of a turn between two suspensions. The id tells the session, so no index is needed."""

    session: str
    turn_id: str
    number: int = 0

    def __str__(self) -> str:
        packed = "\0".join((self.turn_id, str(self.number), self.session)).encode()
        return _PREFIX + base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str) -> ResponseId:
        """Read an id. Raises InvalidArgument for what is none of ours."""
        coded = text.removeprefix(_PREFIX)
        try:
            packed = base64.b64decode(coded + "=" * (-len(coded) % 4), b"-_", validate=True).decode()
        except ValueError:
            packed = ""
        turn_id, _, rest = packed.partition("\0")
        number, _, session = rest.partition("\0")
        digits = number.isascii() and number.isdecimal() and len(number) < 6
        found = cls(session, turn_id, int(number)) if digits and turn_id and session else None
        if found is None or str(found) != text:
            raise InvalidArgument(f"{text[:64]!r} is not the id of a response")
        return found

    @property
    def base(self) -> str:
        """What the ids of its items are made of."""
        return f"{self.turn_id.replace('-', '')}_{self.number}"

    def span(self, node: Node | None) -> RunSpan | None:
        """Its part of the turn; None where the turn has not come so far."""
        at = node.run.suspensions if node is not None and node.run is not None else ()
        if self.number > len(at):
            return None
        until = at[self.number] if self.number < len(at) else None
        return RunSpan(at[self.number - 1] if self.number else "", until)


@dataclass(frozen=True, slots=True)
class About:
    """What of a response is not its output."""

    id: ResponseId
    model: str
    created_at: int = 0
    previous: ResponseId | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)


def asked_of(records: Iterable[Record]) -> dict[str, Any]:
    """What a request said beside its message or its answers, which these are."""
    found: dict[str, Any] = {}
    for record in records:
        text = record.headers.field(CLIENT_INPUT)
        given = from_text(text) if record.input is not None and text is not None else None
        if isinstance(given, Mapping):
            others = given.get("forwardedProps")
            found = {**others} if isinstance(others, Mapping) else {}
            if isinstance(given.get("tools"), list):
                found["tools"] = given["tools"]
    return found


def status_of(run: RunInfo | None, span: RunSpan, units: ResponseUnits) -> str:
    """The status of a response, in OpenAI's words."""
    status = run.status if run is not None else TurnStatus.PENDING
    if span.until is not None:
        # What a turn waited for when it was cancelled is not wanted any more.
        given_up = status is TurnStatus.CANCELLED and not units.is_continued
        return "cancelled" if given_up else "completed"
    match status:
        case TurnStatus.PENDING:
            return "queued"
        case TurnStatus.COMPLETED:
            return "incomplete" if units.finish_reason in _REASONS else "completed"
        case TurnStatus.CANCELLED:
            return "cancelled"
        case TurnStatus.FAILED:
            return "failed"
    return "in_progress"


def is_over(status: str) -> bool:
    """Whether a response with this status changes no more."""
    return status not in ("queued", "in_progress")


def response_json(
    about: About, status: str, units: ResponseUnits, error: ErrorInfo | None = None
) -> ItemJson:
    """A whole response."""
    reason = _REASONS.get(units.finish_reason or "") if status == "incomplete" else None
    previous = str(about.previous) if about.previous is not None else None
    return {
        "id": str(about.id),
        "object": "response",
        "created_at": about.created_at,
        "status": status,
        "background": True,
        "error": _error(error) if status == "failed" else None,
        "incomplete_details": {"reason": reason} if reason is not None else None,
        "model": about.model,
        "output": items_json(units, about.id.base, status),
        "previous_response_id": previous,
        "conversation": {"id": about.id.session},
        "store": True,
        "usage": _usage(units.metadata.get("usage")),
        **_DEFAULTS,
        **{name: about.asked[name] for name in ECHOED if about.asked.get(name) is not None},
    }


def items_json(units: ResponseUnits, base: str, status: str) -> list[ItemJson]:
    """The output of a response with this status."""
    return [
        item_json(units, index, base, _item_status(unit, status), unit.text)
        for index, unit in enumerate(units.all)
    ]


def _item_status(unit: ResponseUnit, status: str) -> str:
    if unit.closed:
        return "incomplete" if unit.incomplete else "completed"
    return "incomplete" if is_over(status) else "in_progress"


def item_id(unit: ResponseUnit, base: str, index: int) -> str:
    """The id of an item: the same for every reader."""
    return f"{unit.kind.value}_{base}_{index}"


def item_json(
    units: ResponseUnits, index: int, base: str, status: str, text: str, *, has_content: bool = True
) -> ItemJson:
    """One item of a response. `has_content`: not where it only begins."""
    unit = units.all[index]
    item: ItemJson = {"id": item_id(unit, base, index)}
    match unit.kind:
        case ResponseKind.TEXT | ResponseKind.REFUSAL:
            is_text = unit.kind is ResponseKind.TEXT
            part = (
                {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
                if is_text
                else {"type": "refusal", "refusal": text}
            )
            content = [part] if has_content else []
            return {**item, "type": "message", "role": "assistant", "status": status, "content": content}
        case ResponseKind.REASONING:
            summary = [{"type": "summary_text", "text": text}] if has_content else []
            return {**item, "type": "reasoning", "status": status, "summary": summary}
        case ResponseKind.CALL:
            called = {"call_id": unit.key, "name": unit.name, "arguments": text}
            return {**item, "type": "function_call", "status": status, **called}
        case ResponseKind.RESULT:
            return {
                **item,
                "type": "function_call_output",
                "status": status,
                "call_id": unit.key,
                "output": text,
            }
        case ResponseKind.APPROVAL:
            call = units.call_of(unit)
            named = {"name": call.name if call else "", "arguments": call.text if call else ""}
            return {**item, "type": "mcp_approval_request", "server_label": SERVER_LABEL, **named}


def _error(error: ErrorInfo | None) -> ItemJson:
    if error is None:
        return {"code": "server_error", "message": "the turn failed"}
    limited = error.code in _RATE_LIMITED or error.status_code == 429
    return {"code": "rate_limit_exceeded" if limited else "server_error", "message": error.message}


def _usage(given: Any) -> ItemJson | None:
    """Token counts that the agent gave as `usage` of its message's metadata, in the words of any of its providers."""
    if not isinstance(given, Mapping):
        return None

    def count(*names: str) -> int:
        found = (given.get(name) for name in names)
        return next((value for value in found if type(value) is int and value >= 0), 0)

    read = count("input_tokens", "inputTokens", "promptTokens", "prompt_tokens")
    written = count("output_tokens", "outputTokens", "completionTokens", "completion_tokens")
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": count("cachedInputTokens", "cache_read_input_tokens"),
            "cache_write_tokens": count("cache_creation_input_tokens"),
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": count("reasoningTokens", "reasoning_tokens")},
        "total_tokens": count("total_tokens", "totalTokens") or read + written,
    }
