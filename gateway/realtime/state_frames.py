"""The frames that tell a client where it stands: CONNECTED (protocol section 4.1) and ATTACHED (section 5.2)."""

from __future__ import annotations

from gateway.auth.authenticator import Credential
from gateway.connection_terms import Terms
from gateway.fanout.subscription import AttachResult
from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire.actions import Action, Flag
from selfhost_transport.wire.channel import ChannelParams
from selfhost_transport.wire.frame import ConnectionDetails, Frame


def connected_frame(
    connection_id: str, key: str, credential: Credential, terms: Terms, error: ErrorInfo | None = None
) -> Frame:
    """CONNECTED. `error`: why a resume failed."""
    return Frame(
        Action.CONNECTED,
        connection_id=connection_id,
        connection_key=key,
        error=error,
        connection_details=ConnectionDetails(
            client_id=credential.identity.announced,
            capability=credential.capability.canonical(),
            connection_key=key,
            max_message_size=terms.max_message_size,
            max_frame_size=terms.max_frame_size,
            connection_state_ttl=terms.connection_state_ttl,
            max_idle_interval=terms.max_idle_interval,
            server_id=terms.server_id,
            site_code=terms.site_code,
        ),
    )


def attached_frame(channel: str, modes: Flag, params: ChannelParams, attached: AttachResult) -> Frame:
    """ATTACHED, with the modes granted."""
    flags = Flag(modes)
    flags |= Flag.RESUMED if attached.resumed else Flag.NONE
    flags |= Flag.HAS_BACKLOG if attached.backlog else Flag.NONE
    flags |= Flag.HAS_PRESENCE if attached.presence else Flag.NONE
    return Frame(
        Action.ATTACHED,
        channel=channel,
        channel_serial=attached.channel_serial,
        flags=flags,
        params=params.accepted(modes),
        error=attached.error,
    )
