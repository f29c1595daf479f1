"""The protocol's REST interface: which request means what (protocol section 9.2)."""

from __future__ import annotations

import logging
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from gateway.auth.authenticator import Credential, now_ms
from gateway.auth.callers import RequestInfo
from gateway.auth.failed_attempts import FailedAttempts
from gateway.comet.requests import Comet
from gateway.http_format import Reply, path_segments, read_body, respond, respond_error
from gateway.rest.annotations import Annotations
from gateway.rest.batch import publish_batch
from gateway.rest.channels import Channels, require_on_all
from gateway.rest.presence import PresenceReads
from gateway.rest.revocation import revoke_tokens
from gateway.rest.tokens import Tokens
from gateway.services import Services
from selfhost_transport.errors import (
    InvalidChannelName,
    NotFound,
    ServiceError,
    TokenError,
    TransportError,
    Unauthorized,
)
from selfhost_transport.wire.capability import Operation
from selfhost_transport.wire.channel import parse_channel

logger = logging.getLogger(__name__)


class Rest:
    """Answers every request that is not one of the gateway's own pages."""

    def __init__(self, services: Services, comet: Comet) -> None:
        self._services = services
        self._comet = comet
        self._channels = Channels(services)
        self._annotations = Annotations(services)
        self._tokens = Tokens(services)
        self._failed_attempts = FailedAttempts()
        self._presence = PresenceReads(services.presence)
        # A batch may hold several publishes; it is still one request.
        self._body_limit = services.settings.gateway.max_frame_size

    async def handle(self, request: Request) -> Response:
        """One request, answered whatever happens."""
        server_id = self._services.server_id
        try:
            segments = path_segments(request)
            if segments[0] == "comet":
                return await self._comet.handle(request, segments[1:])
            return respond(request, await self._route(request, segments), server_id)
        except TransportError as error:
            return respond_error(request, error.info, server_id)
        except Exception:
            # The path of a connection over HTTP holds its key.
            path = "/comet" if request.url.path.startswith("/comet/") else request.url.path
            logger.exception("rest.failed path=%s", path)
            return respond_error(request, ServiceError("internal error; try again").info, server_id)

    async def _route(self, request: Request, segments: list[str]) -> Reply:
        match [request.method, *segments]:
            case ["GET", "time"]:
                return Reply([now_ms()])
            case ["POST", "keys", key_name, "requestToken"]:
                body = await read_body(request, self._body_limit)
                return await self._tokens.request(request, key_name, body)
            case ["POST", "keys", key_name, "revokeTokens"]:
                body = await read_body(request, self._body_limit)
                services = self._services
                return await revoke_tokens(
                    services.authenticator, services.revocations, RequestInfo.of(request), key_name, body
                )
            case ["GET", "channels"]:
                return await self._channels.enumerate(request, await self._credential(request))
            case [_, "channels", channel, *rest]:
                return await self._channel(request, channel, rest)
            case ["POST", "messages"]:
                body = await read_body(request, self._body_limit)
                version = request.headers.get("x-ably-version", "")
                return await publish_batch(self._channels, await self._credential(request), body, version)
            case ["GET", "presence"]:
                return await self._presence.batch(request, await self._credential(request))
            case ["GET", "stats"]:
                require_on_all(await self._credential(request), Operation.STATS)
                # Figures of this service are metrics (`/metrics`); the protocol's statistics are not kept.
                return Reply([])
            case [_, "push", *_]:
                raise NotFound(
                    "push notifications are not part of this service: send them with their providers, for example when an "
                    "exporter reports the end of a turn"
                )
        raise NotFound("no such path, or the method is not allowed on it")

    async def _channel(self, request: Request, full: str, rest: list[str]) -> Reply:
        credential = await self._credential(request)
        ref = parse_channel(full)
        session = ref.name
        channels = self._channels
        if ref.filter is not None and not (request.method == "GET" and rest in (["messages"], ["history"])):
            raise InvalidChannelName("a channel with a filter is subscribed to, or its history is read")
        match [request.method, *rest]:
            case ["POST", "messages"]:
                body = await read_body(request, self._body_limit)
                return await channels.publish(credential, session, body, request.query_params)
            case ["GET", "messages" | "history" as resource]:
                return await channels.history(request, credential, ref, resource)
            case ["GET", "messages", serial]:
                return await channels.message(request, credential, session, serial)
            case ["PATCH", "messages", serial]:
                body = await read_body(request, self._body_limit)
                return await channels.change(credential, session, serial, body)
            case ["GET", "messages", serial, "versions"]:
                return await channels.versions(request, credential, session, serial)
            case ["GET", "messages", serial, "annotations"]:
                return await self._annotations.page(request, credential, session, serial)
            case ["POST", "messages", serial, "annotations"]:
                body = await read_body(request, self._body_limit)
                return await self._annotations.publish(credential, session, serial, body)
            case ["GET"]:
                return await channels.status(credential, session)
            case ["GET", "presence"]:
                return await self._presence.members(request, credential, session)
            case ["GET", "presence", "history"]:
                return await self._presence.history(request, credential, session)
        raise NotFound("no such path, or the method is not allowed on it")

    async def _credential(self, request: Request) -> Credential:
        # On these paths `clientId` is a filter; the credentials alone identify the caller (section 10.6).
        info = RequestInfo.of(request)
        query = {name: value for name, value in info.query.items() if name != "clientId"}
        try:
            return await self._services.authenticator.of_request(replace(info, query=query))
        except TokenError as error:
            if await self._failed_attempts.note(info.token or ""):
                raise
            raise Unauthorized(f"the same token was refused repeatedly: {error.info.message}") from error
