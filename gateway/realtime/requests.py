"""What a connection's frames ask to be stored: each becomes one command, or is refused. No I/O (protocol section 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.commands.annotations import AnnotateContext, prepare_annotations
from gateway.commands.commands import ClientOperation
from gateway.commands.presence import PresenceContext, prepare_presence
from gateway.commands.publishing import PublishContext, Sender, prepare
from gateway.realtime.attachments import Attachments
from gateway.realtime.context import ConnectionContext
from gateway.realtime.members import Members
from selfhost_transport.errors import InvalidArgument, InvalidChannelName
from selfhost_transport.store.names import joined
from selfhost_transport.wire.actions import Action, Flag
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.frame import Frame
from selfhost_transport.wire.ids import default_id_base, fingerprint


class Requests:
    """Makes the commands of one connection."""

    __slots__ = ("_attachments", "_context", "_members")

    def __init__(self, context: ConnectionContext, attachments: Attachments, members: Members) -> None:
        self._context = context
        self._attachments = attachments
        self._members = members

    def operation(self, frame: Frame) -> ClientOperation:
        """What a MESSAGE, PRESENCE or ANNOTATION frame asks for. Raises the TransportError to answer with."""
        return _PREPARE[frame.action](self, frame)

    def _message(self, frame: Frame) -> ClientOperation:
        return prepare(self._publish_context(frame, frame.msg_serial or 0), frame.messages or [])

    def _publish_context(self, frame: Frame, serial: int) -> PublishContext:
        context = self._context
        session, modes, base = self._addressed(frame, serial)
        if (frame.params or {}).get("_forceNack") == "true":
            raise InvalidArgument("refused on request, by the _forceNack param", code=Code.FORCED_NACK)
        return PublishContext(
            session=session,
            sender=Sender(context.credential, context.connection_id),
            rules=context.rules_for(session),
            max_size=context.terms.max_message_size,
            limits=context.limits,
            id_base=base,
            repeat_id=joined("frame", base, fingerprint(frame)),
            may_publish=None if modes is None else bool(modes & Flag.PUBLISH),
            hidden=context.hidden_from(session),
        )

    def _addressed(self, frame: Frame, serial: int) -> tuple[str, Flag | None, str]:
        """Where a frame goes: the session, the modes of its attachment if there is one, and the base of its ids."""
        if frame.channel is None:
            raise InvalidChannelName("the frame needs a channel")
        ref, modes = self._attachments.address(frame.channel)
        return ref.name, modes, default_id_base(self._context.connection_id, serial)

    def _annotation(self, frame: Frame) -> ClientOperation:
        return prepare_annotations(
            self._annotate_context(frame, frame.msg_serial or 0), frame.annotations or []
        )

    def _annotate_context(self, frame: Frame, serial: int) -> AnnotateContext:
        context = self._context
        session, modes, base = self._addressed(frame, serial)
        return AnnotateContext(
            session=session,
            sender=Sender(context.credential, context.connection_id),
            modes=modes,
            max_size=context.terms.max_message_size,
            id_base=base,
            repeat_id=joined("frame", base, fingerprint(frame)),
            limits=context.limits,
        )

    def _presence(self, frame: Frame) -> ClientOperation:
        operation = prepare_presence(
            self._presence_context(frame, frame.msg_serial or 0), frame.presence or []
        )
        self._members.note(operation)
        return operation

    def _presence_context(self, frame: Frame, serial: int) -> PresenceContext:
        context = self._context
        session, modes, base = self._addressed(frame, serial)
        return PresenceContext(
            session=session,
            credential=context.credential,
            holder=context.holder,
            modes=modes,
            max_size=context.terms.max_message_size,
            id_base=base,
            repeat_id=joined("frame", base, fingerprint(frame)),
        )


_PREPARE: Final[Mapping[int, Callable[[Requests, Frame], ClientOperation]]] = {
    Action.MESSAGE: Requests._message,
    Action.PRESENCE: Requests._presence,
    Action.ANNOTATION: Requests._annotation,
}
STORED_ACTIONS: Final = frozenset(_PREPARE)
"""Frames that ask for something to be stored, and are answered."""
