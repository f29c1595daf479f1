"""Annotations as clients send them: what can be checked without the store (protocol section 14.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.auth.rate_limits import Limits
from gateway.commands.commands import Annotate
from gateway.commands.publishing import Sender
from selfhost_transport.errors import BadRequest, CapabilityError, InvalidArgument, MessageTooLarge, NotFound
from selfhost_transport.store.entries import Ref
from selfhost_transport.wire.actions import AnnotationAction, Flag
from selfhost_transport.wire.annotation import Annotation
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.codec import Format, pack
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.serial import parse_position
from selfhost_transport.wire.sizes import data_size, text_size
from selfhost_transport.wire.summary import Method, method_of

MAX_ANNOTATIONS: Final = 100
"""Annotations in one frame or request."""
MAX_COUNT: Final = 1_000_000
_MAX_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class AnnotateContext:
    """One frame or request: where, by whom. `modes`: those of the attachment, None where there is none.

    `id_base` is the base of the ids given to annotations; `repeat_id` recognises the same frame sent again.
    """

    session: str
    sender: Sender
    modes: Flag | None
    max_size: int
    id_base: str
    repeat_id: str = ""
    limits: Limits | None = None


def prepare_annotations(context: AnnotateContext, annotations: Sequence[Annotation]) -> Annotate:
    """The operation that is asked for. Raises the TransportError to answer with; nothing is stored then."""
    session, sender = context.session, context.sender
    if context.modes is not None and not context.modes & Flag.ANNOTATION_PUBLISH:
        raise CapabilityError("the channel was attached without the annotation_publish mode")
    sender.credential.capability.require(Operation.ANNOTATION_PUBLISH, session)
    if not 0 < len(annotations) <= MAX_ANNOTATIONS:
        raise BadRequest(f"1 to {MAX_ANNOTATIONS} annotations are published at once")
    size = sum(_size(annotation) for annotation in annotations)
    if size > context.max_size:
        raise MessageTooLarge(f"the annotations have {size} bytes, the limit is {context.max_size}")
    checked = tuple(_checked(context, index, one) for index, one in enumerate(annotations))
    if context.limits is not None:
        context.limits.admit(sender.credential, sender.connection_id, session)
    return Annotate(session, tuple((ref, one) for ref, one in checked), context.repeat_id)


def message_ref(serial: str | None) -> Ref:
    """The message that a serial names. Raises BadRequest 40000 without one, NotFound for one of another kind."""
    if not serial:
        raise BadRequest("an annotation names the serial of its message")
    try:
        position, _, index = parse_position(serial)
    except InvalidArgument as error:
        raise NotFound("there is no message with this serial in this session") from error
    return Ref(position, index or 0)


def _checked(context: AnnotateContext, index: int, annotation: Annotation) -> tuple[Ref, Annotation]:
    ref = message_ref(annotation.message_serial)
    method = method_of(annotation.type)
    if method.has_names and not annotation.name:
        raise BadRequest(f"an annotation of method {method} needs a name")
    if len(annotation.name or "") > _MAX_NAME:
        raise BadRequest(f"the name of an annotation has at most {_MAX_NAME} characters")
    if annotation.count is not None and not 0 < annotation.count <= MAX_COUNT:
        raise BadRequest(f"the count of an annotation is between 1 and {MAX_COUNT}")
    client_id = context.sender.credential.identity.stamp(annotation.client_id)
    if client_id is None and method.needs_client:
        raise BadRequest(
            f"annotations of method {method} are counted by client: connect with a clientId",
            code=Code.INVALID_CLIENT_ID,
        )
    stamped = replace(
        annotation,
        id=annotation.id or f"{context.id_base}:{index}",
        action=annotation.action or AnnotationAction.CREATE,
        count=annotation.count if method is Method.MULTIPLE else None,
        client_id=client_id,
        connection_id=context.sender.connection_id,
        serial=None,
        timestamp=None,
    )
    return ref, stamped


def _size(annotation: Annotation) -> int:
    texts = (annotation.type, annotation.name, annotation.client_id)
    size = sum(text_size(text) for text in texts) + data_size(annotation.data)
    return size if annotation.extras is None else size + len(pack(annotation.extras, Format.JSON))
