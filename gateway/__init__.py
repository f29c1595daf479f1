"""The websocket and HTTP gateway of sessions."""

from gateway.auth.callers import HostIdentity, Identify, RequestInfo
from gateway.server import Gateway, create_app, run_gateway
from selfhost_transport.version import __version__

__all__ = ["Gateway", "HostIdentity", "Identify", "RequestInfo", "__version__", "create_app", "run_gateway"]
