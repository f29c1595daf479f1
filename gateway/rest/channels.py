"""REST on one channel: publish, history, single messages, versions, status (protocol sections 7.5 and 9.2)."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from starlette.requests import Request

from gateway.auth.authenticator import Credential
from gateway.commands.commands import Done
from gateway.commands.publishing import PublishContext, Sender, prepare, with_action
from gateway.http_format import Reply, answer_format, page_links
from gateway.rest.version_window import VersionWindow
from gateway.services import Services
from selfhost_transport.errors import BadRequest, CapabilityError, InvalidArgument, NotFound, TransportError
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.history import Page, Query
from selfhost_transport.turns.headers import is_deleted_input
from selfhost_transport.turns.withholding import is_hidden, shown
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import ChannelRef
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.connection_key import read_connection_key
from selfhost_transport.wire.message import Format, Message, decode_message, encode_message
from selfhost_transport.wire.serial import format_position, parse_position

DEFAULT_LIMIT = 100
TRUNCATED_AT = "X-Truncated-At"
# Leaves out messages outside the conversation: an application's own.
CONVERSATION = "conversation"
MAX_LIMIT = 1000
_NO_MESSAGE = "no such message in this session, or its retention has expired"


class Channels:
    """What can be done with a channel by plain requests."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def publish(
        self, credential: Credential, session: str, body: Any, params: Mapping[str, str]
    ) -> Reply:
        """Store a message or a list of them. Answers 201 with their serials."""
        if params.get("_forceNack") == "true":
            raise InvalidArgument("refused on request, by the _forceNack param", code=Code.FORCED_NACK)
        result = await self.store(credential, session, body, ephemeral=params.get("ephemeral") == "true")
        return Reply(result, status=201)

    async def store(
        self, credential: Credential, session: str, body: Any, *, ephemeral: bool = False
    ) -> dict[str, Any]:
        """Store what a publish body holds. Returns `{channel, messageId, serials}` and the turn or cancel."""
        items = body if isinstance(body, list) else [body]
        if not all(isinstance(item, dict) for item in items):
            raise BadRequest("a publish is a message or a list of messages", code=Code.INVALID_BODY)
        messages = [decode_message(item, Format.JSON) for item in items]
        if any(message.action not in (None, MessageAction.CREATE) for message in messages):
            raise InvalidArgument("messages are changed with PATCH on their own path")
        base = secrets.token_urlsafe(9)
        context = self._publish_context(credential, session, base, self._connection_of(messages), ephemeral)
        done = await self._services.executor.run(prepare(context, messages))
        first = messages[0].id if messages else None
        return _published(session, first or f"{base}:0", done)

    async def change(self, credential: Credential, session: str, serial: str, body: Any) -> Reply:
        """Update, delete or append to a message."""
        if not isinstance(body, dict):
            raise BadRequest("the body is one message", code=Code.INVALID_BODY)
        change = decode_message(body, Format.JSON)
        action = MessageAction.UPDATE if change.action is None else change.action
        if action is MessageAction.CREATE:
            raise InvalidArgument("a message is created with POST on its channel")
        base = secrets.token_urlsafe(9)
        context = self._publish_context(credential, session, base, None, ephemeral=False)
        operation = prepare(context, [with_action(change, action, serial)])
        done = await self._services.executor.run(operation)
        return Reply({"versionSerial": done.result.serials[0]})

    async def history(
        self, request: Request, credential: Credential, ref: ChannelRef, resource: str
    ) -> Reply:
        """A page of messages in their latest versions, cut between turns where possible."""
        session = ref.name
        credential.capability.require(Operation.HISTORY, session)
        hidden = self._services.hidden_from(credential, session)
        visible = shown(hidden, conversation=request.query_params.get(CONVERSATION) == "true")
        query = replace(list_query(request.query_params), visible=visible)
        page = await self._services.sessions.history.page(session, query)
        fmt = answer_format(request)
        links = page_links(request, resource, page.next_serial, {"limit": str(query.limit)})
        # By what they are now, not by what they were when created; so a page may be shorter, and have a next one.
        messages = page.messages if ref.filter is None else list(filter(ref.filter.matches, page.messages))
        body = [encode_message(message, fmt) for message in told_to(request.query_params, messages)]
        return Reply(body, links=links, headers=await self._truncation(session, page))

    async def _truncation(self, session: str, page: Page) -> dict[str, str]:
        """Says of the page with the oldest messages up to where retention has taken older ones (HIS-6)."""
        if page.truncated_at is None:
            return {}
        epoch = (await self._services.sessions.open(session)).epoch
        return {TRUNCATED_AT: format_position(page.truncated_at, epoch)}

    async def message(self, request: Request, credential: Credential, session: str, serial: str) -> Reply:
        """The latest version of one message."""
        credential.capability.require(Operation.HISTORY, session)
        message = await self._services.sessions.history.message(session, _ref(serial))
        self._require_visible(credential, session, [message])
        return Reply(encode_message(message, answer_format(request)))

    async def versions(self, request: Request, credential: Credential, session: str, serial: str) -> Reply:
        """The create, updates and deletes of a message, oldest first."""
        credential.capability.require(Operation.HISTORY, session)
        forwards = request.query_params.get("direction", "forwards") != "backwards"
        limit = list_limit(request.query_params)
        at = _number(request.query_params, "cursor") or 0
        history, ref = self._services.sessions.history, _ref(serial)
        total = await history.version_count(session, ref)
        window = VersionWindow(at, limit, total, forwards=forwards)
        async for some in history.version_slices(session, ref):
            self._require_visible(credential, session, some)
            window.take(some)
        page = window.page
        more = str(at + len(page)) if at + len(page) < total else None
        links = page_links(request, "versions", more, {"limit": str(limit)})
        fmt = answer_format(request)
        return Reply([encode_message(message, fmt) for message in page], links=links)

    def _require_visible(self, credential: Credential, session: str, versions: list[Message]) -> None:
        """Withheld messages do not exist for the caller, nor do their earlier versions."""
        hidden = self._services.hidden_from(credential, session)
        if any(is_hidden(version, hidden) for version in versions):
            raise NotFound(_NO_MESSAGE)

    async def status(self, credential: Credential, session: str) -> Reply:
        """Whether a channel is in use, and by how many attachments of all gateways."""
        credential.capability.require(Operation.CHANNEL_METADATA, session)
        return Reply(await self._details(session))

    async def enumerate(self, request: Request, credential: Credential) -> Reply:
        """A page of the channels with attachments, by name; with `by=id` their names only."""
        require_on_all(credential, Operation.CHANNEL_METADATA)
        params = request.query_params
        limit, by = list_limit(params), params.get("by", "value")
        if by not in ("value", "id"):
            raise InvalidArgument("by is value or id")
        names = await self._services.board.sessions(
            prefix=params.get("prefix", ""), after=params.get("cursor"), limit=limit + 1
        )
        page = names[:limit]
        cursor = page[-1] if len(names) > limit else None
        links = page_links(request, "channels", cursor, {"limit": str(limit)})
        if by == "id":
            return Reply(page, links=links)
        return Reply(await asyncio.gather(*(self._details(name) for name in page)), links=links)

    async def _details(self, session: str) -> dict[str, Any]:
        occupancy = await self._services.board.read(session)
        # Asking for a channel activates it, as in Ably's service.
        status = {"isActive": True, "occupancy": {"metrics": occupancy.metrics()}}
        return {"channelId": session, "name": session, "status": status}

    def _publish_context(
        self,
        credential: Credential,
        session: str,
        base: str,
        connection_id: str | None,
        ephemeral: bool,
    ) -> PublishContext:
        return PublishContext(
            session=session,
            sender=Sender(credential, connection_id),
            rules=self._services.rules_for(session),
            max_size=self._services.settings.gateway.max_message_size,
            id_base=base,
            limits=self._services.limits,
            ephemeral=ephemeral,
            hidden=self._services.hidden_from(credential, session),
        )

    def _connection_of(self, messages: list[Message]) -> str | None:
        """The connection that a message's `connectionKey` publishes for (section 6.6)."""
        key = next((message.connection_key for message in messages if message.connection_key), None)
        if key is None:
            return None
        try:
            return read_connection_key(self._services.secret, key).connection_id
        except TransportError as error:
            unknown = error_info(Code.INVALID_CONNECTION_KEY_IN_PUBLISH)
            raise BadRequest(unknown.message, code=unknown.code) from error


def _published(session: str, message_id: str, done: Done) -> dict[str, Any]:
    result = done.result
    body: dict[str, Any] = {"channel": session, "messageId": message_id, "serials": result.serials}
    if result.turn is not None:
        body["turn"] = result.turn.to_wire()
    if result.cancel is not None:
        body["cancel"] = result.cancel.to_wire()
    return body


def told_to(params: Mapping[str, str], messages: Sequence[Message]) -> Sequence[Message]:
    """A page for a reader that joins a conversation (`untilAttach`): of a question that was deleted its place has to stay.

    The SDKs take no notice of a deletion while they watch, and skip a deleted question when they read it: the turn that
    answered it, and all after it, would never be shown. They get its last state as an update. `deletes=told` asks for
    deletions as they are.
    """
    if params.get("deletes") == "told" or not (params.get("from_serial") or params.get("fromSerial")):
        return messages
    return [replace(m, action=MessageAction.UPDATE) if is_deleted_input(m) else m for m in messages]


def require_on_all(credential: Credential, operation: Operation) -> None:
    """Raises CapabilityError unless an operation is permitted on `*`."""
    if not credential.capability.allows_on_all(operation):
        raise CapabilityError(f"the credentials do not permit {operation} on every channel")


# Milliseconds far beyond every date, and within what Redis takes for a position.
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}")


def list_query(params: Mapping[str, str]) -> Query:
    """What a list request asks for (section 9.1). Raises InvalidArgument, NotFound for a foreign cursor."""
    direction = params.get("direction", "backwards")
    if direction not in ("forwards", "backwards"):
        raise InvalidArgument("direction is forwards or backwards")
    until = params.get("from_serial") or params.get("fromSerial")
    cursor = params.get("cursor")
    return Query(
        limit=list_limit(params),
        forwards=direction == "forwards",
        cursor=_ref(cursor) if cursor else None,
        until=parse_position(until)[0] if until else None,
        start_ms=_number(params, "start"),
        end_ms=_number(params, "end"),
    )


def list_limit(params: Mapping[str, str]) -> int:
    """The page size asked for, at most `MAX_LIMIT`. Raises InvalidArgument."""
    limit = _number(params, "limit")
    if limit is None:
        return DEFAULT_LIMIT
    if limit < 1:
        raise InvalidArgument("limit must be at least 1")
    return min(limit, MAX_LIMIT)


def _number(params: Mapping[str, str], name: str) -> int | None:
    text = params.get(name)
    if text is None or text == "":
        return None
    if _NUMBER.fullmatch(text) is None:
        raise InvalidArgument(f"{name} must be an integer of at most 15 digits")
    return int(text)


def _ref(serial: str) -> Ref:
    try:
        position, _, index = parse_position(serial)
    except InvalidArgument as error:
        raise NotFound(_NO_MESSAGE) from error
    return Ref(position, index or 0)
