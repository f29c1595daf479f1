"""A recorded event of a turn's lifecycle, built anew."""

from __future__ import annotations

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.lifecycle import (
    RunReason,
    StepReason,
    run_end,
    run_resume,
    run_start,
    run_suspend,
    step_end,
    step_start,
)
from selfhost_transport.wire.message import Message
from tests.turns.transcripts import context_of, transport


def rebuilt(message: Message) -> Message:
    """The same life-cycle message, made by our builders."""
    ctx, found = context_of(message), transport(message)
    match message.name:
        case h.AI_RUN_START:
            return run_start(ctx)
        case h.AI_RUN_RESUME:
            return run_resume(ctx)
        case h.AI_RUN_SUSPEND:
            return run_suspend(ctx)
        case h.AI_STEP_START:
            return step_start(ctx)
        case h.AI_STEP_END:
            return step_end(ctx, found["step-start-serial"], StepReason(found["step-reason"]))
        case _:
            error = ErrorInfo(int(found.get("error-code", 0)), 500, found.get("error-message", ""))
            return run_end(ctx, RunReason(found["run-reason"]), error if "error-code" in found else None)
