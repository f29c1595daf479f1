"""The Python SDK: a client of sessions and turns over a websocket."""
