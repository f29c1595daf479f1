"""Agents: take turns from the queue, stream their answers into sessions, end every turn exactly once."""

from agent_worker.errors import AgentError
from agent_worker.output import Piece, Reasoning
from agent_worker.turn import AbortCause, PipeReason, PipeResult, Turn
from agent_worker.worker import Worker, WorkerStatistics

__all__ = [
    "AbortCause",
    "AgentError",
    "Piece",
    "PipeReason",
    "PipeResult",
    "Reasoning",
    "Turn",
    "Worker",
    "WorkerStatistics",
]
