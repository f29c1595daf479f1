"""The runs of a turn, as AG-UI and Responses have them: where each begins and ends, and what it waits for.

Of AG-UI also the first and the last event of a run.

A turn that is suspended is several runs, one for each request that let it go on.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from selfhost_transport.turns import chunks as c
from selfhost_transport.turns import decoder as d
from selfhost_transport.turns.agui_stream import VERSION
from selfhost_transport.turns.agui_units import EventJson
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.ui_stream import CANCELLED, contents_of_turn
from selfhost_transport.turns.values import Absent, Json

_ANSWERS: Final = (d.ToolResolved, d.ToolFailed, d.ApprovalAnswered)
_COUNTS: Final = (
    "inputTokens",
    "outputTokens",
    "totalTokens",
    "cachedInputTokens",
    "cacheWriteInputTokens",
    "reasoningTokens",
)
APPROVAL: Final = "tool_approval"
"""The reason of an interrupt for a call that has to be allowed."""


def run_event(run_id: str) -> str:
    """The event id of the message that a run sends, so that the same run asked for again is found."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"agui-run {run_id}"))


def answer_event(run_id: str, call_id: str) -> str:
    """The event id of a run's answer to a call."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"agui-run {run_id} {call_id}"))


@dataclass(frozen=True, slots=True)
class RunSpan:
    """What of a turn a run is: after serial `start`, up to the suspension `until`, if that has come."""

    start: str = ""
    until: str | None = None

    def holds(self, serial: str | None) -> bool:
        """Whether a message of the turn is part of the run."""
        return serial is None or (serial > self.start and (self.until is None or serial <= self.until))


def answered_at(node: Node | None, run_id: str) -> str | None:
    """The serial of the first answer that a run gave to the turn's calls; None when it gave none."""
    for record in node.records() if node is not None else ():
        event = record.input
        if isinstance(event, _ANSWERS) and record.headers.event_id == answer_event(
            run_id, event.tool_call_id
        ):
            return record.serial
    return None


def span_of(node: Node | None, run_id: str, after: str = "") -> RunSpan:
    """The part of a turn that a run is. `after`: where it begins if it gave no answer that counted."""
    return span_from(node, answered_at(node, run_id) or after)


def span_from(node: Node | None, start: str) -> RunSpan:
    """What follows in a turn after a serial, up to its next suspension."""
    suspensions = node.run.suspensions if node is not None and node.run is not None else ()
    return RunSpan(start, next((serial for serial in suspensions if serial > start), None))


def newest_span(node: Node | None) -> RunSpan:
    """What a turn is at: since it was last resumed, or, of one that is suspended, up to there."""
    run = node.run if node is not None else None
    if run is None or not run.suspensions:
        return RunSpan()
    at = run.suspensions
    if run.status is not TurnStatus.SUSPENDED:
        return RunSpan(at[-1])
    return RunSpan(at[-2] if len(at) > 1 else "", at[-1])


def chunks_of_run(node: Node | None, span: RunSpan) -> Iterator[tuple[str, c.Chunk]]:
    """What the agent said in a run. Answers of people are not in it: who gave them has them."""
    for record, chunk in contents_of_turn(node):
        if chunk is not None and span.holds(record.serial):
            yield record.codec_message_id, chunk


@dataclass(slots=True)
class Pending:
    """Calls that wait for people, each with the message that made it. Of `approvals`: also their ids, by call."""

    calls: dict[str, str] = field(default_factory=dict)
    approvals: dict[str, tuple[str, str]] = field(default_factory=dict)
    # What each call is of: the tool's name and its input.
    asked: dict[str, tuple[str, Json]] = field(default_factory=dict)

    @property
    def call_of_interrupt(self) -> dict[str, str]:
        """The calls that have to be allowed, by approval."""
        return {approval: call for call, (approval, _) in self.approvals.items()}


def pending_calls(node: Node | None, until: str | None = None) -> Pending:
    """What a turn waits for, or waited for when it was suspended at `until`."""
    found = Pending()
    for record, chunk in contents_of_turn(node):
        if until is not None and record.serial is not None and record.serial > until:
            break
        event = record.input
        if isinstance(chunk, c.ToolInputAvailable):
            value = None if isinstance(chunk.input, Absent) else chunk.input
            found.asked[chunk.tool_call_id] = chunk.tool_name, value
        match chunk:
            case c.ToolInputAvailable() if not chunk.provider_executed:
                found.calls[chunk.tool_call_id] = record.codec_message_id
            case c.ToolApprovalRequest():
                found.calls.pop(chunk.tool_call_id, None)
                found.approvals[chunk.tool_call_id] = chunk.approval_id, record.codec_message_id
            case c.ToolOutputAvailable() if chunk.preliminary:
                pass
            case c.ToolOutputAvailable() | c.ToolOutputError() | c.ToolOutputDenied() | c.ToolInputError():
                found.calls.pop(chunk.tool_call_id, None)
                found.approvals.pop(chunk.tool_call_id, None)
        if chunk is None and isinstance(event, _ANSWERS):
            asked = found.approvals.pop(event.tool_call_id, None)
            found.calls.pop(event.tool_call_id, None)
            if asked is not None and isinstance(event, d.ApprovalAnswered) and event.approved:
                found.calls[event.tool_call_id] = asked[1]
    return found


def usage_of_run(node: Node | None, span: RunSpan) -> list[EventJson]:
    """What the model calls of a run used: `usage` in the metadata of its messages, an object or a list of them."""
    found: dict[str, list[EventJson]] = {}
    for message, chunk in chunks_of_run(node, span):
        metadata = getattr(chunk, "message_metadata", None)
        given = metadata.get("usage") if isinstance(metadata, dict) else None
        if given is not None:
            # A later word about the same message replaces the earlier one.
            found[message] = [_usage(one) for one in (given if isinstance(given, list) else [given])]
    return [one for several in found.values() for one in several if one]


def _usage(given: Json) -> EventJson:
    """What the protocol knows of it; nothing is made up, and zero is not unknown."""
    values = given if isinstance(given, dict) else {}
    counts = {name: value for name in _COUNTS if isinstance(value := values.get(name), int) and value >= 0}
    named = {name: value for name in ("provider", "model") if isinstance(value := values.get(name), str)}
    return {**named, **counts} if counts else {}


def started(thread_id: str, run_id: str, turn_id: str | None) -> EventJson:
    """The first event of a run."""
    event = {"type": "RUN_STARTED", "threadId": thread_id, "runId": run_id, "protocolVersion": VERSION}
    return {**event, "metadata": {"turnId": turn_id}} if turn_id is not None else event


def finished(
    thread_id: str,
    run_id: str,
    run: RunInfo | None,
    pending: Pending,
    *,
    suspended: bool,
    old: bool,
    usage: Sequence[EventJson] = (),
) -> EventJson:
    """The last event of a run; everything is closed before it. `old`: the client is older than AG-UI 1.0."""
    if run is not None and run.status is TurnStatus.FAILED and not suspended:
        error = run.error
        message = error.message if error is not None else "the turn failed"
        code = {"code": str(error.code)} if error is not None else {}
        used = {"usage": list(usage)} if usage and not old else {}
        return {"type": "RUN_ERROR", "message": message, **code, **used, "metadata": {"turnId": run.run_id}}
    metadata = {"turnId": run.run_id} if run is not None else {}
    event: EventJson = {"type": "RUN_FINISHED", "threadId": thread_id, "runId": run_id}
    if suspended:
        outcome, more = _waits(pending, old)
        metadata |= more
    elif run is not None and run.status is TurnStatus.CANCELLED:
        # Older clients know no such outcome; it must not look like a success either.
        outcome = None if old else {"type": "cancelled"}
        metadata |= {"status": str(CANCELLED["status"])}
    else:
        outcome = None if old else {"type": "success"}
    if outcome is not None:
        event["outcome"] = outcome
    if usage and not old:
        event["usage"] = list(usage)
    return {**event, "metadata": metadata} if metadata else event


def _asked_for(pending: Pending, call: str) -> EventJson:
    """What a person decides about; by the names that TanStack AI's client knows an approval by."""
    if call not in pending.asked:
        return {}
    name, value = pending.asked[call]
    return {"metadata": {"kind": "approval", "toolName": name, "input": {} if value is None else value}}


def _waits(pending: Pending, old: bool) -> tuple[EventJson | None, EventJson]:
    calls = list(pending.calls)
    if pending.approvals:
        interrupts = [
            {
                "id": approval,
                "reason": APPROVAL,
                "toolCallId": call,
                "message": "the call waits for an approval: resume with its id, resolved or cancelled",
                **_asked_for(pending, call),
            }
            for call, (approval, _) in pending.approvals.items()
        ]
        more = {"pendingToolCallIds": calls} if calls else {}
        return {"type": "interrupt", "interrupts": interrupts}, more
    if old:
        return None, {"pendingToolCallIds": calls}
    return {"type": "success", **({"pendingToolCallIds": calls} if calls else {})}, {}
