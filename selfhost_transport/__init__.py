"""What every process shares, and the Python SDK of the session layer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfhost_transport.client import (
        CancelResult,
        ClientOptions,
        ClientTransport,
        ConversationMessage,
        DataPart,
        FilePart,
        OpenCall,
        ReasoningDelta,
        Seed,
        SendPolicy,
        StreamReset,
        SyncClientTransport,
        SyncTurn,
        TextDelta,
        TextPart,
        ToolPart,
        Turn,
        TurnStatus,
        UIMessage,
        View,
        Waiting,
    )

__all__ = [
    "CancelResult",
    "ClientOptions",
    "ClientTransport",
    "ConversationMessage",
    "DataPart",
    "FilePart",
    "OpenCall",
    "ReasoningDelta",
    "Seed",
    "SendPolicy",
    "StreamReset",
    "SyncClientTransport",
    "SyncTurn",
    "TextDelta",
    "TextPart",
    "ToolPart",
    "Turn",
    "TurnStatus",
    "UIMessage",
    "View",
    "Waiting",
]


def __getattr__(name: str) -> Any:
    """Load the SDK on first use, so that gateways and workers do not pay for it."""
    if name in __all__:
        return getattr(importlib.import_module("selfhost_transport.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """For tab completion, which does not see what was not loaded yet."""
    return sorted({*globals(), *__all__})
