"""The websocket and HTTP gateway of sessions."""

from gateway.server import Gateway, create_app, run_gateway

__all__ = ["Gateway", "create_app", "run_gateway"]
