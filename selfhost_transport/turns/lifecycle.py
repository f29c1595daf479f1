"""The life-cycle messages an agent publishes; header sets and order as protocol section 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import (
    STEP_START_PLACEHOLDER,
    TurnContext,
    context_for_input,
    invocation_id_for,
    step_id_for,
    turn_id_for,
)
from selfhost_transport.turns.values import to_text
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message

__all__ = [
    "STEP_START_PLACEHOLDER",
    "RunReason",
    "StepReason",
    "TurnContext",
    "cancel_verdict",
    "context_for_input",
    "invocation_id_for",
    "run_end",
    "run_escalated",
    "run_queued",
    "run_resume",
    "run_start",
    "run_suspend",
    "step_end",
    "step_id_for",
    "step_start",
    "turn_id_for",
]


class RunReason(StrEnum):
    """How a turn ended: the three terminals."""

    COMPLETE = h.COMPLETE
    CANCELLED = h.CANCELLED
    ERROR = h.ERROR


class StepReason(StrEnum):
    """How an attempt of a step ended."""

    COMPLETE = h.COMPLETE
    FAILED = h.FAILED
    CANCELLED = h.CANCELLED


def run_start(ctx: TurnContext) -> Message:
    """`ai-run-start`: a fresh invocation opens the turn."""
    return _message(
        ctx,
        h.AI_RUN_START,
        (h.RUN_ID, ctx.turn_id),
        (h.RUN_CLIENT_ID, ctx.owner_client_id or ""),
        (h.PARENT, ctx.parent),
        (h.FORK_OF, ctx.fork_of),
        (h.MSG_REGENERATE, ctx.msg_regenerate),
        *_invocation(ctx),
    )


def run_queued(ctx: TurnContext, position: int) -> Message:
    """`ai-run-queued`: the turn waits by policy, as the `position`-th (from 1) at the time it was accepted (DBL-2)."""
    return _message(ctx, h.AI_RUN_QUEUED, *_run(ctx), *_invocation(ctx), (h.QUEUE_POSITION, str(position)))


def run_resume(ctx: TurnContext) -> Message:
    """`ai-run-resume`: another invocation re-enters the turn."""
    return _message(ctx, h.AI_RUN_RESUME, *_run(ctx), *_invocation(ctx))


def run_suspend(ctx: TurnContext) -> Message:
    """`ai-run-suspend`: the turn waits for an answer by a client."""
    return _message(ctx, h.AI_RUN_SUSPEND, *_run(ctx), *_invocation(ctx))


def run_escalated(ctx: TurnContext, call_ids: Sequence[str]) -> Message:
    """`ai-run-escalated`: these calls have been unanswered for too long (HIL-5)."""
    calls = (h.TOOL_CALL_IDS, to_text(list(call_ids)))
    return _message(ctx, h.AI_RUN_ESCALATED, *_run(ctx), *_invocation(ctx), calls)


def run_end(ctx: TurnContext, reason: RunReason, error: ErrorInfo | None = None) -> Message:
    """`ai-run-end`: the terminal. `error` is only written with reason `error`."""
    shown = error if reason == RunReason.ERROR else None
    return _message(
        ctx,
        h.AI_RUN_END,
        *_run(ctx),
        (h.RUN_REASON, reason.value),
        *_invocation(ctx),
        (h.ERROR_CODE, str(shown.code) if shown else None),
        (h.ERROR_MESSAGE, shown.message if shown else None),
    )


def cancel_verdict(
    ctx: TurnContext, requester: str, *, allowed: bool, error: ErrorInfo | None = None
) -> Message:
    """Announces the outcome of a cancel that the agent decided, and who requested it (CAN-8)."""
    return _message(
        ctx,
        h.AI_CANCEL_ALLOWED if allowed else h.AI_CANCEL_DENIED,
        *_run(ctx),
        (h.CANCEL_CLIENT_ID, requester),
        (h.ERROR_CODE, str(error.code) if error else None),
        (h.ERROR_MESSAGE, error.message if error else None),
    )


def step_start(ctx: TurnContext) -> Message:
    """`ai-step-start`: an attempt of step `ctx.step_id` begins; its serial identifies the attempt."""
    return _message(
        ctx, h.AI_STEP_START, (h.RUN_ID, ctx.turn_id), (h.STEP_ID, ctx.step_id), *_step_authors(ctx)
    )


def step_end(ctx: TurnContext, step_start_serial: str, reason: StepReason) -> Message:
    """`ai-step-end` of the attempt whose `ai-step-start` has the given serial (or STEP_START_PLACEHOLDER)."""
    return _message(
        ctx,
        h.AI_STEP_END,
        (h.RUN_ID, ctx.turn_id),
        (h.STEP_ID, ctx.step_id),
        (h.STEP_START_SERIAL, step_start_serial),
        *_step_authors(ctx),
        (h.STEP_REASON, reason.value),
    )


def _run(ctx: TurnContext) -> tuple[tuple[str, str | None], ...]:
    return (h.RUN_ID, ctx.turn_id), (h.RUN_CLIENT_ID, ctx.owner_client_id or "")


def _invocation(ctx: TurnContext) -> tuple[tuple[str, str | None], ...]:
    return (
        (h.INVOCATION_ID, ctx.invocation_id),
        (h.INPUT_CLIENT_ID, ctx.input_client_id),
        (h.INPUT_CODEC_MESSAGE_ID, ctx.input_codec_message_id),
    )


def _step_authors(ctx: TurnContext) -> tuple[tuple[str, str | None], ...]:
    return (
        (h.INVOCATION_ID, ctx.invocation_id),
        (h.RUN_CLIENT_ID, ctx.owner_client_id),
        (h.INPUT_CLIENT_ID, ctx.input_client_id),
        (h.STEP_CLIENT_ID, ctx.step_client_id),
    )


def _message(ctx: TurnContext, name: str, *pairs: tuple[str, str | None]) -> Message:
    return Message(
        name=name,
        client_id=ctx.agent_client_id,
        extras=h.make_extras(h.header_map(*pairs)),
        action=MessageAction.CREATE,
    )
