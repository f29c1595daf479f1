"""The Python SDK: a client of one session, over a websocket that mends itself."""

from selfhost_transport.client.cancel_result import CancelResult
from selfhost_transport.client.connection.state import ConnectionState, StateChange
from selfhost_transport.client.options import ClientOptions
from selfhost_transport.client.rest import HistoryPage
from selfhost_transport.client.session.events import Discontinuity, Entry, Waiting
from selfhost_transport.client.session.requests import SendPolicy
from selfhost_transport.client.session.stream import StreamPart, StreamReset, TurnStream
from selfhost_transport.client.session.turn import OpenCall, Turn
from selfhost_transport.client.session.view import BranchSelection, View
from selfhost_transport.client.sync import SyncClientTransport, SyncTurn, SyncTurnStream, SyncView
from selfhost_transport.client.transport import ClientTransport
from selfhost_transport.turns.chunks import ReasoningDelta, TextDelta
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.seed import Seed
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.ui import ConversationMessage, DataPart, FilePart, TextPart, ToolPart, UIMessage

__all__ = [
    "BranchSelection",
    "CancelResult",
    "ClientOptions",
    "ClientTransport",
    "ConnectionState",
    "ConversationMessage",
    "DataPart",
    "Discontinuity",
    "Entry",
    "FilePart",
    "HistoryPage",
    "OpenCall",
    "ReasoningDelta",
    "RunInfo",
    "Seed",
    "SendPolicy",
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
    "Turn",
    "TurnStatus",
    "TurnStream",
    "UIMessage",
    "View",
    "Waiting",
]
