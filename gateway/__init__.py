"""The websocket and HTTP gateway of sessions."""
