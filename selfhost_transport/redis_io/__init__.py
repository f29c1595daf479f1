"""Connecting to Redis: pipelined scripts, notifications, the embedded server."""
