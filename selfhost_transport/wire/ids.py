"""Message ids and the two kinds of deduplication built on them (protocol sections 4.5, 6.2 and 6.4, P5)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from selfhost_transport.errors import BadRequest
from selfhost_transport.wire.codec import Format, pack
from selfhost_transport.wire.frame import Frame, frame_map
from selfhost_transport.wire.message import Message


def client_id_base(messages: Sequence[Message]) -> str | None:
    """The idempotency base of a publish of creates: None when no message has an id.

    A single message may have any id, of which a trailing `:0` is not part of the base; several have either
    none or `<base>:0`, `<base>:1` and so on. Raises BadRequest 40031 otherwise. Ids on updates, deletes and
    appends mean nothing: do not ask.
    """
    given = [message.id for message in messages]
    if all(item is None for item in given):
        return None
    first = given[0]
    if first == "" or None in given:
        raise _bad_ids("either every message of a publish has an id that is not empty, or none")
    base = _base_of(first or "")
    if len(given) > 1 and given != [f"{base}:{index}" for index in range(len(given))]:
        raise _bad_ids("ids of one publish are <base>:0, <base>:1 and so on, of one base")
    return base


def default_id_base(connection_id: str, msg_serial: int) -> str:
    """The base of ids given by the service: `connectionId:msgSerial`."""
    return f"{connection_id}:{msg_serial}"


def assign_ids(messages: Sequence[Message], base: str) -> None:
    """Give `<base>:<index>` to the messages that have no id of their own."""
    for index, message in enumerate(messages):
        if message.id is None:
            message.id = f"{base}:{index}"


def fingerprint(frame: Frame) -> str:
    """Distinguishes a repeated frame from another one with the same msgSerial: 32 hex digits over its content.

    A client may number frames again after a failed resume, so the number alone says nothing (section 4.5).
    """
    content = frame_map(frame, Format.MSGPACK)
    content.pop("msgSerial", None)
    return blake2b(pack(content, Format.MSGPACK), digest_size=16).hexdigest()


def _base_of(message_id: str) -> str:
    base, separator, index = message_id.rpartition(":")
    return base if separator and base and index == "0" else message_id


def _bad_ids(reason: str) -> BadRequest:
    return BadRequest(reason, code=40031)
