"""OpenAI's conversations: sessions under their names. Their items are made from the branch that is shown."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any, Final

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from gateway.auth.authenticator import Credential
from gateway.http_api.dependencies import Running, Session
from gateway.http_api.reader import SessionReader
from gateway.http_api.responses import Limit, OpenAICaller, Order
from gateway.http_api.responses_errors import OpenAIRoute, refused
from gateway.http_api.responses_items import conversation_items, page
from gateway.http_api.responses_read import require_readable
from gateway.http_api.responses_turns import new_session
from gateway.http_api.turn_calls import TurnCalls
from gateway.services import Services
from selfhost_transport.errors import NotFound
from selfhost_transport.store.history import Query
from selfhost_transport.turns.view import TreeView
from selfhost_transport.wire.message import Message

METADATA: Final = "conversation-metadata"
"""Name of the message that holds what an application says of a conversation; the newest counts."""
_MAX_PAIRS: Final = 16
_MAX_NAME: Final = 64
_MAX_VALUE: Final = 512
_PAGES: Final = 25
"""Pages of history that are read for the metadata: they are sent where a conversation begins, or anew."""
_KEPT: Final = (
    "a conversation is kept as long as its namespace says (`retention`); it cannot be deleted before"
)
_SEND: Final = "a message of the user is answered: send it with `responses.create` and `conversation`"

router = APIRouter(route_class=OpenAIRoute, tags=["responses"])


class ConversationIn(BaseModel):
    """What is said of a conversation: at most 16 pairs of texts."""

    model_config = ConfigDict(extra="ignore")

    metadata: dict[str, str] | None = None
    items: list[Any] | None = None
    model: str | None = None
    """The agent of a new conversation, where there are several."""

    def checked(self) -> dict[str, str]:
        """The metadata. Raises InvalidArgument where they are too many or too long, and for items."""
        if self.items:
            raise refused(_SEND, "items")
        found = self.metadata or {}
        if len(found) > _MAX_PAIRS:
            raise refused(f"metadata has at most {_MAX_PAIRS} pairs", "metadata")
        if any(len(name) > _MAX_NAME or len(value) > _MAX_VALUE for name, value in found.items()):
            raise refused(
                f"names have at most {_MAX_NAME} and values at most {_MAX_VALUE} characters", "metadata"
            )
        return found


@router.post("/v1/conversations")
async def create(body: ConversationIn, credential: OpenAICaller, services: Running) -> dict[str, Any]:
    """A new session, which a message says is there."""
    metadata = body.checked()
    session = new_session(services, credential, body.model, uuid.uuid4())
    require_readable(credential, session)
    return await _say(services, credential, session, metadata)


@router.get("/v1/conversations/{session}")
async def retrieve(session: Session, credential: OpenAICaller, services: Running) -> dict[str, Any]:
    """A session, with what was said of it."""
    return await _shown(services, credential, session)


@router.post("/v1/conversations/{session}")
async def update(
    session: Session, body: ConversationIn, credential: OpenAICaller, services: Running
) -> dict[str, Any]:
    """Replace what is said of a session."""
    metadata = body.checked()
    await _shown(services, credential, session)
    return await _say(services, credential, session, metadata)


@router.delete("/v1/conversations/{session}")
async def delete(session: Session, credential: OpenAICaller, services: Running) -> Response:
    """Refused: sessions are kept as their namespace says."""
    await _shown(services, credential, session)
    raise refused(_KEPT, "conversation_id", "method_not_allowed", status=405)


@router.get("/v1/conversations/{session}/items")
async def list_items(
    session: Session,
    credential: OpenAICaller,
    services: Running,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "desc",
) -> dict[str, Any]:
    """Messages, reasoning, calls and their outputs."""
    return page(await _items(services, credential, session), after, limit, order)


@router.post("/v1/conversations/{session}/items")
async def create_items(session: Session, credential: OpenAICaller, services: Running) -> Response:
    """Refused: a message of the user starts a turn."""
    require_readable(credential, session)
    raise refused(_SEND, "items")


@router.get("/v1/conversations/{session}/items/{item_id}")
async def retrieve_item(
    session: Session, item_id: str, credential: OpenAICaller, services: Running
) -> dict[str, Any]:
    """One item."""
    for item in await _items(services, credential, session):
        if item["id"] == item_id:
            return item
    raise NotFound(f"there is no item {item_id[:64]!r} in this conversation")


@router.delete("/v1/conversations/{session}/items/{item_id}")
async def delete_item(
    session: Session, item_id: str, credential: OpenAICaller, services: Running
) -> Response:
    """Refused: items are parts of messages."""
    require_readable(credential, session)
    raise refused(_KEPT, "item_id", "method_not_allowed", status=405)


async def _items(services: Services, credential: Credential, session: str) -> list[dict[str, Any]]:
    """All items of the branch that is shown, oldest first, as far back as one request reads."""
    require_readable(credential, session)
    async with SessionReader(services, credential, session, lambda tree: False) as reader:
        items = conversation_items(reader.tree, TreeView(reader.tree))
    if not items:
        await _shown(services, credential, session)
    return items


async def _say(
    services: Services, credential: Credential, session: str, metadata: dict[str, str]
) -> dict[str, Any]:
    said = Message(name=METADATA, data=orjson.dumps(metadata).decode(), encoding="json")
    said.client_id = credential.identity.stamp(None)
    await TurnCalls(services, credential, session).give([said])
    return await _shown(services, credential, session)


async def _shown(services: Services, credential: Credential, session: str) -> dict[str, Any]:
    """A session as a conversation. Raises NotFound for one in which nothing was ever said."""
    require_readable(credential, session)
    history = services.sessions.history
    first = await history.page(session, Query(limit=1, forwards=True))
    if not first.messages:
        raise NotFound(f"there is no conversation {session[:64]!r}")
    created = (first.messages[0].timestamp or 0) // 1000
    metadata = await _metadata(services, session)
    return {"id": session, "object": "conversation", "created_at": created, "metadata": metadata}


async def _metadata(services: Services, session: str) -> dict[str, Any]:
    query = Query(limit=100, align=False)
    for _ in range(_PAGES):
        page = await services.sessions.history.page(session, query)
        for message in page.messages:
            if message.name == METADATA and isinstance(message.data, str):
                try:
                    found = orjson.loads(message.data)
                except orjson.JSONDecodeError:
                    continue
                return found if isinstance(found, dict) else {}
        if page.next_cursor is None:
            break
        query = replace(query, cursor=page.next_cursor)
    return {}
