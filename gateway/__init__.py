"""The websocket and HTTP gateway of sessions."""

from gateway.auth.callers import HostIdentity, Identify, RequestInfo
from gateway.server import Gateway, create_app, run_gateway

__all__ = ["Gateway", "HostIdentity", "Identify", "RequestInfo", "create_app", "run_gateway"]
