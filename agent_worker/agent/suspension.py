"""Turns that wait for people: calls of client tools and approvals, and the answers that end the wait (TOL-2, HIL-1)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from enum import StrEnum

from agent_worker.agent.tools import ToolCall
from agent_worker.user_code.containment import ControlFlow
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.store.turn_inputs import Continuation
from selfhost_transport.store.turn_pauses import Escalation
from selfhost_transport.store.turn_request import continuation_for
from selfhost_transport.turns import decoder as d
from selfhost_transport.turns import inputs, lifecycle, ui
from selfhost_transport.turns.calls import approval_key, result_key
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.values import ABSENT, Absent, Json
from selfhost_transport.wire.message import Message

TIMED_OUT = "This tool call was not answered in time."
APPROVAL_TIMED_OUT = "This tool call was not approved or denied in time."


class Default(StrEnum):
    """How an approval counts that was not given in time."""

    DENY = "deny"
    APPROVE = "approve"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a call. `client_id` is the verified identity of its sender; None: anonymous.

    Of an approval `approved` is set, and `reason` if one was given; of a client tool `output` or `error`.
    """

    call: ToolCall
    client_id: str | None
    approved: bool | None = None
    reason: str | None = None
    output: Json | Absent = ABSENT
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """What a turn is suspended for. `timeout_s` None: for as long as it takes."""

    calls: tuple[ToolCall, ...]
    # The assistant message that each call is in.
    message_ids: tuple[str, ...]
    timeout_s: float | None = None
    default: Default = Default.DENY
    # After this many seconds without an answer `ai-run-escalated` is written (HIL-5); None: never.
    escalate_s: float | None = None

    def __post_init__(self) -> None:
        if not self.calls:
            raise InvalidArgument("a turn is suspended for at least one call")
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise InvalidArgument("a suspension's timeout is a number of seconds above 0, or None")
        if self.escalate_s is not None and not 0 < self.escalate_s < (self.timeout_s or math.inf):
            raise InvalidArgument(
                "a suspension is escalated after a number of seconds above 0, before its timeout"
            )

    @property
    def awaited(self) -> list[str]:
        """The calls as the store names them."""
        return [
            approval_key(call.call_id) if call.needs_approval else result_key(call.call_id)
            for call in self.calls
        ]

    def escalation(self, context: TurnContext) -> Escalation | None:
        """What is written to the session, and when, without an answer."""
        if self.escalate_s is None:
            return None
        message = lifecycle.run_escalated(context, [call.call_id for call in self.calls])
        return Escalation(int(self.escalate_s * 1000), message)

    def expiry(
        self, context: TurnContext, form: inputs.InputForm = inputs.UI_INPUTS
    ) -> tuple[dict[str, Message], Continuation | None]:
        """The default answers after the timeout, and the invocation that follows (TOL-9)."""
        if self.timeout_s is None:
            return {}, None
        answers = [
            self._silence(context, call, message_id, form)
            for call, message_id in zip(self.calls, self.message_ids, strict=True)
        ]
        return dict(zip(self.awaited, answers, strict=True)), continuation_for(answers[-1], context)

    def _silence(
        self, context: TurnContext, call: ToolCall, message_id: str, form: inputs.InputForm
    ) -> Message:
        agent = context.agent_client_id
        if call.needs_approval:
            answer = inputs.tool_approval_response(
                message_id,
                context.turn_id,
                call.call_id,
                self.default is Default.APPROVE,
                event_id=inputs.new_id(),
                client_id=None,
                reason=APPROVAL_TIMED_OUT,
                form=form,
            )
        else:
            answer = inputs.tool_result_error(
                message_id, context.turn_id, call.call_id, TIMED_OUT, event_id=inputs.new_id(), client_id=None,
                form=form,
            )  # fmt: skip
        answer.client_id = agent
        answer.timestamp = int(time.time() * 1000)
        return answer


class Suspended(ControlFlow):
    """Leaves the agent's function for as long as the turn waits; the runtime catches it, agents let it pass."""

    def __init__(self, wait: Wait) -> None:
        super().__init__("the turn is suspended")
        self.wait = wait


def answers_in(node: Node) -> list[Answer]:
    """The answers that a turn has got, in the order they came in; the first to a call is the one that counts."""
    found: dict[str, Answer] = {}
    for record in node.records():
        event = record.input
        if isinstance(event, d.ToolResolved | d.ToolFailed | d.ApprovalAnswered):
            key = approval_key if isinstance(event, d.ApprovalAnswered) else result_key
            answer = _answer(_call(node, event.tool_call_id), record.client_id, event)
            found.setdefault(key(event.tool_call_id), answer)
    return list(found.values())


def _answer(
    call: ToolCall, client_id: str | None, event: d.ToolResolved | d.ToolFailed | d.ApprovalAnswered
) -> Answer:
    match event:
        case d.ApprovalAnswered():
            return Answer(call, client_id, approved=event.approved, reason=event.reason)
        case d.ToolFailed():
            return Answer(call, client_id, error=event.text)
        case d.ToolResolved():
            return Answer(call, client_id, output=event.output)


def _call(node: Node, call_id: str) -> ToolCall:
    for message_id, state in node.messages.items():
        for part in state.snapshot().message.parts:
            if isinstance(part, ui.ToolPart) and part.tool_call_id == call_id:
                known = None if isinstance(part.input, Absent) else part.input
                return ToolCall(part.tool_name, known, call_id, announced=True, message_id=message_id)
    return ToolCall("", None, call_id, announced=True)
