"""Presence by plain requests: members, events, several channels at once (protocol sections 8.5 and 9.2)."""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from starlette.requests import Request

from gateway.auth.authenticator import Credential
from gateway.http_format import Reply, answer_format, page_links
from gateway.rest.channels import list_limit, list_query
from selfhost_transport.errors import BadRequest, InvalidArgument, TransportError
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.presence import PresenceStore
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import parse_channel
from selfhost_transport.wire.presence import PresenceMessage, encode_presence

MAX_BATCH: Final = 100


class PresenceReads:
    """Present members, and the presence history."""

    def __init__(self, presence: PresenceStore) -> None:
        self._presence = presence

    async def members(self, request: Request, credential: Credential, session: str) -> Reply:
        """A page of the members, ordered by connection and client id, filtered by `clientId`, `connectionId`."""
        credential.capability.require(Operation.SUBSCRIBE, session)
        params = request.query_params
        limit = list_limit(params)
        found = await self._presence.members(
            session, client_id=params.get("clientId"), connection_id=params.get("connectionId")
        )
        after = _read_cursor(params)
        if after is not None:
            found = [member for member in found if _identity(member) > after]
        page = found[:limit]
        cursor = _cursor(page[-1]) if len(found) > limit else None
        fmt = answer_format(request)
        links = page_links(request, "presence", cursor, {"limit": str(limit)})
        return Reply([encode_presence(member, fmt) for member in page], links=links)

    async def history(self, request: Request, credential: Credential, session: str) -> Reply:
        """A page of presence events in their original actions, newest first unless asked otherwise."""
        credential.capability.require(Operation.HISTORY, session)
        params = dict(request.query_params)
        cursor = params.pop("cursor", None)
        query = replace(list_query(params), cursor=_event_ref(cursor) if cursor else None)
        page = await self._presence.history(session, query)
        following = str(page.next_cursor) if page.next_cursor is not None else None
        fmt = answer_format(request)
        links = page_links(request, "history", following, {"limit": str(query.limit)})
        return Reply([encode_presence(event, fmt) for event in page.events], links=links)

    async def batch(self, request: Request, credential: Credential) -> Reply:
        """The members of several channels; a channel that fails is an item error, never a failed request."""
        names = request.query_params.get("channels", "").split(",")
        if len(names) > MAX_BATCH:
            raise BadRequest(f"a batch has at most {MAX_BATCH} channels")
        results = [await self._one_of_batch(request, credential, name) for name in names]
        failures = sum("error" in result for result in results)
        counts = {"successCount": len(results) - failures, "failureCount": failures}
        return Reply({**counts, "results": results})

    async def _one_of_batch(self, request: Request, credential: Credential, name: str) -> dict[str, Any]:
        try:
            session = parse_channel(name).name
            credential.capability.require(Operation.SUBSCRIBE, session)
            members = await self._presence.members(session)
        except TransportError as error:
            return {"channel": name, "error": error.info.to_wire()}
        fmt = answer_format(request)
        return {"channel": name, "presence": [encode_presence(member, fmt) for member in members]}


def _identity(member: PresenceMessage) -> tuple[str, str]:
    return member.connection_id or "", member.client_id or ""


def _cursor(member: PresenceMessage) -> str:
    """The identity of a member as a cursor: client ids may hold any character."""
    return urlsafe_b64encode(" ".join(_identity(member)).encode()).decode().rstrip("=")


def _read_cursor(params: Mapping[str, str]) -> tuple[str, str] | None:
    cursor = params.get("cursor")
    if not cursor:
        return None
    try:
        connection, _, client = _decoded(cursor).partition(" ")
    except ValueError:
        raise InvalidArgument("invalid cursor") from None
    return connection, client


def _decoded(cursor: str) -> str:
    padded = cursor + "=" * (-len(cursor) % 4)
    return b64decode(padded, altchars=b"-_", validate=True).decode()


def _event_ref(cursor: str) -> Ref:
    try:
        return Ref.parse(cursor)
    except ValueError:
        raise InvalidArgument("invalid cursor") from None
