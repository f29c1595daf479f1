"""REST on the annotations of a message (protocol sections 9.2 and 14.1)."""

from __future__ import annotations

import secrets
from typing import Any

from starlette.requests import Request

from gateway.auth.authenticator import Credential
from gateway.commands.annotations import AnnotateContext, message_ref, prepare_annotations
from gateway.commands.publishing import Sender
from gateway.http_format import Reply, answer_format, page_links
from gateway.rest.channels import list_limit
from gateway.services import Services
from selfhost_transport.errors import BadRequest, InvalidArgument
from selfhost_transport.wire.annotation import decode_annotation, encode_annotation
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.message import Format
from selfhost_transport.wire.serial import Position, parse_position


class Annotations:
    """Publishing and listing."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def publish(self, credential: Credential, session: str, serial: str, body: Any) -> Reply:
        """Add annotations to a message, or take one's own back. Answers 201 with their serials."""
        items = body if isinstance(body, list) else [body]
        if not all(isinstance(item, dict) for item in items):
            raise BadRequest("the body is an annotation or a list of annotations", code=Code.INVALID_BODY)
        annotations = [decode_annotation({**item, "messageSerial": serial}, Format.JSON) for item in items]
        context = AnnotateContext(
            session=session,
            sender=Sender(credential),
            modes=None,
            max_size=self._services.settings.gateway.max_message_size,
            id_base=secrets.token_urlsafe(9),
            limits=self._services.limits,
        )
        done = await self._services.executor.run(prepare_annotations(context, annotations))
        return Reply({"channel": session, "serials": done.result.serials}, status=201)

    async def page(self, request: Request, credential: Credential, session: str, serial: str) -> Reply:
        """A page of a message's annotations, oldest first; none for an unknown message."""
        credential.capability.require(Operation.HISTORY, session)
        params = request.query_params
        limit, after = list_limit(params), _cursor(params.get("cursor"))
        found = await self._services.annotations.page(
            session, message_ref(serial), after=after, limit=limit + 1
        )
        page = found[:limit]
        cursor = page[-1].serial if len(found) > limit else None
        links = page_links(request, "annotations", cursor, {"limit": str(limit)})
        fmt = answer_format(request)
        return Reply([encode_annotation(annotation, fmt) for annotation in page], links=links)


def _cursor(text: str | None) -> Position:
    if not text:
        return Position.ZERO
    try:
        return parse_position(text)[0]
    except InvalidArgument:
        raise InvalidArgument("invalid cursor") from None
