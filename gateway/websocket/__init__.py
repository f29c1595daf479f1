"""Bytes and frames of a websocket: the upgrade, the protocol, reading and writing frames."""
