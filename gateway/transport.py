"""The former place of `RawWebSocket`; it is now `gateway.websocket.upgrade`. Kept for one release."""

import warnings

from gateway.websocket.upgrade import RawWebSocket

__all__ = ["RawWebSocket"]

warnings.warn(
    "gateway.transport is deprecated: import RawWebSocket from gateway.websocket.upgrade",
    DeprecationWarning,
    stacklevel=2,
)
