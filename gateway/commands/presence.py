"""Presence: what a client may announce (protocol section 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.auth.authenticator import Credential
from gateway.commands.commands import ChangePresence
from selfhost_transport.errors import BadRequest, CapabilityError, InvalidArgument, MessageTooLarge
from selfhost_transport.store.presence import MIN_REMAIN_MS, Holder
from selfhost_transport.wire.actions import Flag, PresenceAction
from selfhost_transport.wire.capability import Operation as Right
from selfhost_transport.wire.codec import Format, pack
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.sizes import data_size, text_size

MAX_OPERATIONS: Final = 200
"""Maximum operations in one frame; the store needs about 2 ms for them (P9)."""
MAX_REMAIN_MS: Final = 600_000

_CHANGES: Final = frozenset({PresenceAction.ENTER, PresenceAction.LEAVE, PresenceAction.UPDATE})


@dataclass(frozen=True, slots=True)
class PresenceContext:
    """One PRESENCE frame: where, by whom. `modes`: those of the attachment, None where there is none.

    `id_base` is the base of the ids given to operations; `repeat_id` recognises the same frame sent again.
    """

    session: str
    credential: Credential
    holder: Holder
    modes: Flag | None
    max_size: int
    id_base: str
    repeat_id: str


def prepare_presence(context: PresenceContext, messages: Sequence[PresenceMessage]) -> ChangePresence:
    """The operation a PRESENCE frame asks for. Raises the TransportError to answer with; nothing is stored then."""
    if context.modes is None:
        raise BadRequest("presence needs an attached channel", code=Code.PRESENCE_WRONG_STATE)
    if not context.modes & Flag.PRESENCE:
        raise CapabilityError("the channel was attached without the presence mode")
    context.credential.capability.require(Right.PRESENCE, context.session)
    if not 0 < len(messages) <= MAX_OPERATIONS:
        raise InvalidArgument(f"a presence frame has 1 to {MAX_OPERATIONS} operations")
    size = sum(presence_size(message) for message in messages)
    if size > context.max_size:
        raise MessageTooLarge(f"the frame has {size} bytes, the limit is {context.max_size}; send less data")
    changes = tuple(_stamped(context, index, message) for index, message in enumerate(messages))
    return ChangePresence(context.session, context.holder, changes, context.repeat_id)


def presence_size(message: PresenceMessage) -> int:
    """Bytes of client id, data and extras as JSON (section 6.7)."""
    size = text_size(message.client_id) + data_size(message.data)
    return size if message.extras is None else size + len(pack(message.extras, Format.JSON))


def remain_ms(query: Mapping[str, str], default: int) -> int:
    """How long the members of a lost connection stay, ms: `remainPresentFor` of the query, within bounds."""
    text = query.get("remainPresentFor", "")
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        return default
    return min(max(int(text), MIN_REMAIN_MS), MAX_REMAIN_MS)


def _stamped(context: PresenceContext, index: int, message: PresenceMessage) -> PresenceMessage:
    """The operation with its verified client id, and the id it is known by (section 8.2)."""
    if message.action not in _CHANGES:
        raise InvalidArgument("a client may enter, update or leave")
    client_id = context.credential.identity.stamp(message.client_id)
    if client_id is None:
        raise BadRequest(
            "presence needs a clientId: connect with one, or name it when entering",
            code=Code.PRESENCE_NO_CLIENT_ID,
        )
    connection_id = context.holder.connection_id
    # A re-entry keeps the id of the member's last change, so that it changes nothing where that is still known.
    known = message.id is not None and message.id.startswith(f"{connection_id}:")
    return replace(
        message,
        id=message.id if known else f"{context.id_base}:{index}",
        client_id=client_id,
        connection_id=connection_id,
        timestamp=None,
    )
