"""What an application may set on a client; everything has a default that suits a conversation."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from selfhost_transport.client.arguments import shown
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.codecs import UI_MESSAGES, codec_named
from selfhost_transport.wire.channel import check_name
from selfhost_transport.wire.codec import Format


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Options of one client. Times in seconds. Raises InvalidArgument for a value out of range."""

    # "json" or "msgpack".
    format: Format = Format.MSGPACK
    # Waiting for the socket and for CONNECTED; then the next endpoint is tried.
    connect_timeout: float = 10.0
    # Waiting for ATTACHED; then ATTACH is sent again.
    attach_timeout: float = 10.0
    # Delay before the second attempt to connect; it doubles up to `retry_max`. Jitter is always applied.
    retry_initial: float = 0.1
    retry_max: float = 15.0
    # Sends that may wait for the service; the next one is refused with RateLimited.
    outbox_limit: int = 10_000
    # Messages of the conversation that are read and shown at once on attach; 0: none until `load_older`.
    history_limit: int = 100
    # Entries of the session per history request; None: as many as the messages wanted probably take. How many are
    # shown at a time is the caller's choice (HIS-7).
    page_size: int | None = None
    # False: this connection does not receive its own messages.
    echo: bool = True
    # What messages are read and written in, by name ("vercel-ui-message", "openai-responses") or one's own (SDK-5).
    codec: Codec | str = UI_MESSAGES
    # Certificates of gateways: a context of one's own, or a file (PEM) with the CAs to trust besides the system's. The
    # system's are those that SSL_CERT_FILE and SSL_CERT_DIR name, where they are set.
    ssl_context: ssl.SSLContext | None = None
    ca_file: str | Path | None = None
    # Further query parameters of the connection, such as `appendRollupWindow` (protocol section 2.1).
    transport_params: Mapping[str, str] = field(default_factory=dict)
    # Channel parameters (protocol section 5.3).
    channel_params: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "format", Format(self.format))
        except ValueError:
            raise InvalidArgument(f"format is json or msgpack, not {self.format!r}") from None
        object.__setattr__(self, "codec", codec_named(self.codec))
        for name in ("connect_timeout", "attach_timeout", "retry_initial", "retry_max"):
            if not isinstance(value := getattr(self, name), int | float) or value <= 0:
                raise InvalidArgument(f"{name} is a number of seconds above 0")
        if (
            self.outbox_limit < 1
            or self.history_limit < 0
            or not 1 <= (1 if self.page_size is None else self.page_size) <= 1000
        ):
            raise InvalidArgument("outbox_limit is at least 1, page_size 1..1000, history_limit 0 or more")


def require_client_id(client_id: str | None) -> str | None:
    """A client id that may be asked for: not empty and not the wildcard. Raises InvalidArgument."""
    if client_id is not None and (not isinstance(client_id, str) or client_id in ("", "*")):
        raise InvalidArgument(
            "a client id is a text that is neither empty nor `*`; leave it out to be anonymous"
        )
    return client_id


def require_channel(name: str) -> str:
    """A session name within the rules of protocol section 5.1. Raises InvalidChannelName, InvalidArgument."""
    if not isinstance(name, str):
        raise InvalidArgument(f"channel is the name of the session, a text, not {shown(name)}")
    if name.startswith("["):
        raise InvalidArgument("give channel parameters as channel_params, not in the name of the channel")
    check_name(name)
    return name
