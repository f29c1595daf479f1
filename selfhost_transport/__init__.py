"""What every process shares, and the Python SDK of the session layer.

`ClientTransport` and what it gives are the SDK; `Settings` and `TurnExporter` are for processes of your own on a
deployment's Redis. Errors are in `selfhost_transport.errors`, all of them subclasses of `TransportError`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from selfhost_transport.version import __version__

if TYPE_CHECKING:
    from selfhost_transport.client import (
        BranchSelection,
        CancelResult,
        ClientOptions,
        ClientTransport,
        ConnectionState,
        ConversationMessage,
        DataPart,
        Discontinuity,
        Entry,
        FilePart,
        HistoryPage,
        OpenCall,
        ReasoningDelta,
        RunInfo,
        Seed,
        SendPolicy,
        StateChange,
        StreamPart,
        StreamReset,
        SyncClientTransport,
        SyncTurn,
        SyncTurnStream,
        SyncView,
        TextDelta,
        TextPart,
        ToolPart,
        Turn,
        TurnStatus,
        TurnStream,
        UIMessage,
        View,
        Waiting,
    )
    from selfhost_transport.errors import TransportError
    from selfhost_transport.exporter import EndedTurn, TurnExporter
    from selfhost_transport.settings import NamespaceRule, RedisSettings, Settings, load_settings

_ELSEWHERE: Final = {
    "EndedTurn": "exporter",
    "NamespaceRule": "settings",
    "RedisSettings": "settings",
    "Settings": "settings",
    "TransportError": "errors",
    "TurnExporter": "exporter",
    "load_settings": "settings",
}
"""The modules of the names that are not of `client`."""

__all__ = [
    "BranchSelection",
    "CancelResult",
    "ClientOptions",
    "ClientTransport",
    "ConnectionState",
    "ConversationMessage",
    "DataPart",
    "Discontinuity",
    "EndedTurn",
    "Entry",
    "FilePart",
    "HistoryPage",
    "NamespaceRule",
    "OpenCall",
    "ReasoningDelta",
    "RedisSettings",
    "RunInfo",
    "Seed",
    "SendPolicy",
    "Settings",
    "StateChange",
    "StreamPart",
    "StreamReset",
    "SyncClientTransport",
    "SyncTurn",
    "SyncTurnStream",
    "SyncView",
    "TextDelta",
    "TextPart",
    "ToolPart",
    "TransportError",
    "Turn",
    "TurnExporter",
    "TurnStatus",
    "TurnStream",
    "UIMessage",
    "View",
    "Waiting",
    "__version__",
    "load_settings",
]


def __getattr__(name: str) -> Any:
    """Load the SDK on first use, so that gateways and workers do not pay for it."""
    if name in __all__:
        module = importlib.import_module(f"{__name__}.{_ELSEWHERE.get(name, 'client')}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """For tab completion, which does not see what was not loaded yet."""
    return sorted({*globals(), *__all__})
