"""Agents: take turns from the queue, stream their answers into sessions, end every turn exactly once."""

import warnings
from typing import TYPE_CHECKING

from agent_worker.agent.agent import OnSteer
from agent_worker.agent.cancel_hook import CancelRequest, Undecided
from agent_worker.agent.suspension import Answer, Default
from agent_worker.agent.tools import ToolCall
from agent_worker.agent.turn import AbortCause, PipeReason, PipeResult, Turn
from agent_worker.output.message import OutputChunk, Reasoning
from agent_worker.output.usage import Usage
from agent_worker.runtime.embedding import working
from agent_worker.runtime.worker import Worker, WorkerStatistics
from agent_worker.user_code.errors import AgentError
from agent_worker.workflow.held_turn import HeldTurn
from agent_worker.workflow.host import AgentHost
from agent_worker.workflow.session import AgentSession
from selfhost_transport.turns.seed import Seed
from selfhost_transport.version import __version__

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
    "OutputChunk",
    "PipeReason",
    "PipeResult",
    "Reasoning",
    "Seed",
    "ToolCall",
    "Turn",
    "Undecided",
    "Usage",
    "Worker",
    "WorkerStatistics",
    "__version__",
    "working",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """The former name of OutputChunk, for one release."""
        if name != "Piece":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        warnings.warn("Piece is deprecated: use OutputChunk", DeprecationWarning, stacklevel=2)
        return OutputChunk
