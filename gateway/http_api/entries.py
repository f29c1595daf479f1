"""Reading a session forward from any position, for exporters and copies (HIS-12)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Query as Param

from gateway.http_api.dependencies import Caller, Running, Session, TypedErrorRoute
from gateway.http_api.models import EntriesOut
from selfhost_transport.errors import ContinuityLost
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.history import Query
from selfhost_transport.turns.withholding import shown
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.message import Format, encode_message
from selfhost_transport.wire.serial import MAX_INDEX, Position, format_position, parse_position

MAX_ENTRIES = 1000

router = APIRouter(route_class=TypedErrorRoute)


@router.get("/v1/sessions/{session}/entries", tags=["sessions"])
async def entries(
    session: Session,
    credential: Caller,
    services: Running,
    after: str | None = None,
    limit: Annotated[int, Param(ge=1, le=MAX_ENTRIES)] = 100,
) -> EntriesOut:
    """The messages after a position (or from the beginning), in the order they were sent, each as it is now.

    `next` is where to continue, also when nothing is left: later there may be more. What happens to messages that were
    read already is reported by the session's events.
    """
    credential.capability.require(Operation.HISTORY, session)
    head = await services.sessions.open(session)
    cursor = _cursor(after, head.epoch) if after else None
    visible = shown(services.hidden_from(credential, session))
    page = await services.sessions.history.page(
        session, Query(limit=limit, forwards=True, cursor=cursor, align=False, visible=visible)
    )
    found: list[dict[str, Any]] = [encode_message(message, Format.JSON) for message in page.messages]
    truncated, last = page.truncated_at, found[-1]["serial"] if found else after
    return EntriesOut(
        entries=found,
        next=page.next_serial or last or format_position(Position.ZERO, head.epoch),
        more=page.next_cursor is not None,
        truncated_at=format_position(truncated, head.epoch) if truncated is not None else None,
    )


def _cursor(after: str, epoch: str) -> Ref:
    """A message's serial, or a position with all that was published there. Raises InvalidArgument, ContinuityLost."""
    position, of_epoch, index = parse_position(after)
    if of_epoch != epoch:
        raise ContinuityLost(
            "unknown position in this session; read it from the beginning", code=Code.POSITION_UNKNOWN
        )
    return Ref(position, MAX_INDEX if index is None else index)
