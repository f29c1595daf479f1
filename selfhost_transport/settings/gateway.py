"""The process that clients connect to, and how much of it they may use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from selfhost_transport.settings.section import Count, PositiveInt, Section
from selfhost_transport.settings_values import require_origin

DEV_AGENT = "assistant"


class GatewaySettings(Section):
    """The process that clients connect to."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """TCP port; 0 = any free one, printed once ready."""
    processes: PositiveInt = 1
    """Processes that share the port."""
    tls_cert: Path | None = None
    """Certificate (PEM, with those above it); the port then speaks TLS. Absent: plain HTTP. Read again when it changes."""
    tls_key: Path | None = None
    """Its private key (PEM, without a password); absent: it stands in the certificate's file."""
    max_idle_ms: Count = 15_000
    """Longest silence on a connection before a heartbeat, ms; 0 = no heartbeats."""
    connection_state_ttl_ms: PositiveInt = 960_000
    """How long clients try to resume a dropped connection, ms; long enough for a laptop that sleeps."""
    max_message_size: PositiveInt = 65_536
    """Largest publish of a client, bytes; workers are not bound by it."""
    max_frame_size: PositiveInt = 524_288
    """Largest websocket frame and body of a request that is accepted, bytes."""
    max_chat_size: PositiveInt = 4_194_304
    """Largest request of a `useChat` page or an AG-UI client, which sends all messages that it shows, bytes."""
    resume_window_s: PositiveInt = 960
    """How far back the live log reaches for a reader that resumes, s; each append takes about 65 bytes of Redis for that time."""
    remain_present_for_ms: int = Field(default=15_000, ge=1_000)
    """How long presence members outlive a lost connection that did not say how long, ms."""
    presence_lease_ms: int = Field(default=5_000, ge=100)
    """How long a gateway that falls silent keeps its presence members, before that time begins, ms."""
    request_timeout_ms: PositiveInt = 10_000
    """How long the first line and headers of a request may take, ms; then the connection is closed."""
    outgoing_buffer_bytes: PositiveInt = 1_048_576
    """Unsent bytes of a connection before its reader counts as slow."""
    drain_ms: Count = 5_000
    """Time over which a stopping gateway sends its connections away, ms; 0 = all at once."""
    dev: bool = False
    """Accept the development key, from loopback only, when no key is configured."""
    dev_agent: str = DEV_AGENT
    """Agent of every session in development, where no namespace is configured."""
    console: bool = False
    """Serve the operators' console at `/console`; it asks for a key with the right `console` on all sessions."""
    allowed_origins: tuple[Annotated[str, AfterValidator(require_origin)], ...] = ()
    """Origins (`https://chat.example.com`) of pages whose cookies and proxies count, a list; the gateway's own is one always."""
    allowed_hosts: tuple[Annotated[str, Field(pattern=r"^[^\s/]+$")], ...] = ()
    """Host names answered to besides this machine's, a list; empty = any, unless the development key is accepted."""

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> Self:
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key is given without tls_cert")
        return self


class LimitSettings(Section):
    """Limits beyond which requests are refused, so that the rest runs in time; cancels are exempt. 0 = no limit.

    Rates and connections are counted by each gateway process, turns in Redis.
    """

    connection_publishes_per_s: Count = 0
    """Publishes of one connection per second; beyond: 42911."""
    client_publishes_per_s: Count = 0
    """Publishes of one client id, on all its connections, per second; beyond: 42910."""
    session_publishes_per_s: Count = 0
    """Publishes into one session by all clients, per second; beyond: 42913."""
    application_publishes_per_s: Count = 0
    """Publishes of one application (tenant: the part of a key before the dot, or an issuer) per second; beyond: 42910."""
    connections_per_client: Count = 0
    """Open connections of one client id, and as many event streams over HTTP; a further one is refused with 42920."""
    new_sessions_per_s: Count = 100
    """New sessions that one client id (or all clients without one) may attach per second; 5 seconds' worth at once."""
    unfinished_per_address: Count = 4096
    """Connections of one address that have not sent a whole request yet, per process; a further one is closed."""
    max_open_turns: Count = 1_000
    """Turns of one session that have not ended; a further send is refused with 42910."""
    max_waiting: Count = 2_000
    """Turns of one agent that wait for a worker, in each bucket; a further send is refused with 50005."""
    max_wait_ms: Count = 1_000
    """Longest wait for a worker, at the pace at which they take turns, ms; a send that would wait longer: 50005."""
    burst_wait_ms: Count = 3_000
    """The same for the first five seconds of an overload, so that many sends at once wait instead of being refused."""
    max_lag_ms: Count = 500
    """How late a gateway's event loop may be on average, ms; when it is later for two seconds, sends are refused with 50005."""
