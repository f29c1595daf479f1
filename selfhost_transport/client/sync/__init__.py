"""The client for programs without an event loop."""

from selfhost_transport.client.sync.transport import SyncClientTransport, SyncView
from selfhost_transport.client.sync.turn import SyncTurn, SyncTurnStream

__all__ = ["SyncClientTransport", "SyncTurn", "SyncTurnStream", "SyncView"]
