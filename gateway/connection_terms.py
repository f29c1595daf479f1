"""What a connection is promised, and held to: sizes, times, the server's name (protocol section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """The contents of CONNECTED, and the enforced limits. Sizes in bytes, times in ms."""

    max_message_size: int
    max_frame_size: int
    connection_state_ttl: int
    max_idle_interval: int
    server_id: str
    site_code: str = "loc"
