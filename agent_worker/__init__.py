"""Agents: take turns from the queue, stream their answers into sessions, end every turn exactly once."""

from agent_worker.agent_session import AgentSession
from agent_worker.agents import OnSteer
from agent_worker.cancel_hook import CancelRequest, Undecided
from agent_worker.embedding import working
from agent_worker.errors import AgentError
from agent_worker.held_turn import HeldTurn
from agent_worker.host import AgentHost
from agent_worker.output import Piece, Reasoning
from agent_worker.suspension import Answer, Default
from agent_worker.tools import ToolCall
from agent_worker.turn import AbortCause, PipeReason, PipeResult, Turn
from agent_worker.worker import Worker, WorkerStatistics
from selfhost_transport.turns.seed import Seed

__all__ = [
    "AbortCause",
    "AgentError",
    "AgentHost",
    "AgentSession",
    "Answer",
    "CancelRequest",
    "Default",
    "HeldTurn",
    "OnSteer",
    "Piece",
    "PipeReason",
    "PipeResult",
    "Reasoning",
    "Seed",
    "ToolCall",
    "Turn",
    "Undecided",
    "Worker",
    "WorkerStatistics",
    "working",
]
