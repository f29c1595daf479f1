"""The gateway as an application: complete (`create_app`), mountable (`Gateway`), or as a process (`run_gateway`)."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, cast

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from starlette.routing import BaseRoute, Match, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.auth.callers import Identify, RequestInfo, behind_local_proxies
from gateway.auth.log_redaction import hide_credentials
from gateway.auth.origins import Origins, is_same_origin
from gateway.background import Background
from gateway.comet.requests import Comet
from gateway.comet.siblings import Siblings, listen_to_siblings
from gateway.cors import SAME_ORIGIN_ONLY, Cors, KnownHosts
from gateway.http_api.agui import router as api_agui
from gateway.http_api.chat import router as api_chat
from gateway.http_api.chat_page import file_response, page_response, worker_response
from gateway.http_api.console import add_console
from gateway.http_api.console import router as api_operator
from gateway.http_api.conversations import router as api_conversations
from gateway.http_api.entries import router as api_entries
from gateway.http_api.errors import error_response
from gateway.http_api.event_stream import StreamingApplication, sent_in_layers
from gateway.http_api.inputs import router as api_inputs
from gateway.http_api.me import router as api_me
from gateway.http_api.operations import router as api_operations
from gateway.http_api.operators import add_documentation, require_operator
from gateway.http_api.personal_data import router as api_personal_data
from gateway.http_api.push import router as api_push
from gateway.http_api.responses import router as api_responses
from gateway.http_api.sessions import router as api
from gateway.processes import supervise
from gateway.push.pushes import Pushes
from gateway.realtime.endpoint import Realtime
from gateway.rest.head import answer_head
from gateway.rest.router import Rest
from gateway.retention_sweeper import sweep_retention
from gateway.services import Services, connect_services
from gateway.store_watch import watch_store
from gateway.webhooks import WebhookSender
from gateway.websocket.acceptor import Acceptor, Handshakes
from gateway.websocket.http import UpgradingHttp
from gateway.websocket.tls import Certificate
from gateway.websocket.upgrade import RawWebSocket
from selfhost_transport import tracing
from selfhost_transport.descriptors import raise_descriptor_limit
from selfhost_transport.errors import InvalidArgument, StoreUnavailable, TransportError
from selfhost_transport.gc_tuning import tune_gc
from selfhost_transport.metrics import CONTENT_TYPE
from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET, Settings
from selfhost_transport.store.statistics import Statistics, read_statistics
from selfhost_transport.store.stores import Stores

logger = logging.getLogger(__name__)

_STATISTICS_TIMEOUT_S: Final = 2.0
_OBSERVED_EVERY_S: Final = 1.0
_TITLE: Final = "selfhost-transport gateway"
_WITHOUT_DOCUMENTATION: Final[dict[str, Any]] = {"docs_url": None, "redoc_url": None, "openapi_url": None}


class Gateway:
    """The gateway's routes and life. Mount it, and enter `lifespan` from the host application's own.

    `services` is there between entering and leaving. `identify` identifies callers before keys and tokens are
    checked.
    """

    def __init__(
        self, settings: Settings, identify: Identify | None = None, *, group: Path | None = None
    ) -> None:
        self.settings = settings
        # Where the processes that share this one's port listen for each other.
        self._group = group
        self._identify = identify
        self.services: Services | None = None
        self.realtime: Realtime | None = None
        self._rest: Rest | None = None

    def __repr__(self) -> str:
        return f"<Gateway {self.settings.redis.prefix!r} {'running' if self.services is not None else 'not running'}>"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Connect to Redis, serve, send all clients away, disconnect. Raises StoreUnavailable, StoreUnsuitable."""
        hide_credentials()
        services = await connect_services(self.settings, self._identify)
        self.services = services
        self.realtime = Realtime(services)
        siblings = Siblings(self._group, services.secret)
        self._rest = Rest(services, Comet(services, self.realtime, siblings))
        realtime = self.realtime
        pushes = Pushes.of(services)

        def revoked() -> None:
            realtime.revoked()
            pushes.revoked()

        services.revocations.on_change = revoked
        background = Background("gateway")
        background.start(realtime.keep_alive())
        background.start(self._observe(services))
        background.start(services.board.run())
        background.start(sweep_retention(services.retention))
        background.start(watch_store(services))
        for rule in self.settings.webhooks:
            background.start(WebhookSender(self.settings, rule).deliver_all())
        pushes.start(background)
        background.start(services.presence_lease.run(lambda: realtime.sockets))
        try:
            yield
        finally:
            await background.close()
            services.end_streams()
            await realtime.drain(0.0)
            await realtime.close()
            await siblings.close()
            await services.presence_lease.retire()
            await services.close()
            self.services = None

    def add_routes(self, app: FastAPI) -> None:
        """Put the gateway's routes on an application. The protocol's REST takes every remaining path."""
        app.state.gateway = self
        app.include_router(api)
        app.include_router(api_entries)
        app.include_router(api_inputs)
        app.include_router(api_me)
        app.include_router(api_push)
        app.include_router(api_chat)
        app.include_router(api_agui)
        app.include_router(api_responses)
        app.include_router(api_conversations)
        app.include_router(api_operator)
        app.include_router(api_operations)
        app.include_router(api_personal_data)
        app.add_api_websocket_route("/", self._websocket)
        app.add_api_route("/", self._page, methods=["GET"], include_in_schema=False)
        app.add_api_route("/config.json", self._page_config, methods=["GET"], include_in_schema=False)
        app.add_api_route("/healthz", self._healthy, methods=["GET"], tags=["operations"])
        app.add_api_route("/readyz", self._ready, methods=["GET"], tags=["operations"])
        app.add_api_route("/metrics", self._metrics, methods=["GET"], tags=["operations"])
        if self.settings.gateway.console:
            add_console(app)
        app.add_api_route("/push-worker.js", worker_response, methods=["GET"], include_in_schema=False)
        app.add_api_route("/static/{name}", file_response, methods=["GET"], include_in_schema=False)
        app.router.routes.append(CatchAllRoute(self._protocol_rest, app.router))

    def app(self) -> FastAPI:
        """The routes as an application to mount under a path or a host name; the lifespan stays the host's to enter."""
        app = StreamingApplication(title=_TITLE, **_WITHOUT_DOCUMENTATION)
        self._complete(app)
        return app

    def _complete(self, app: FastAPI) -> None:
        """Make an application of the gateway's own."""
        add_documentation(app, self)
        self.add_routes(app)
        app.add_middleware(Cors, settings=self.settings)
        app.add_middleware(KnownHosts, settings=self.settings)

    def running(self) -> Services:
        """The services. Raises StoreUnavailable outside the lifespan."""
        if self.services is None:
            raise StoreUnavailable("the gateway is not running")
        return self.services

    async def _websocket(self, websocket: WebSocket) -> None:
        if self.realtime is None:
            raise StoreUnavailable("the gateway is not running")
        await self.realtime.serve(websocket)

    async def _protocol_rest(self, request: Request) -> Response:
        if self._rest is None:
            raise StoreUnavailable("the gateway is not running")
        return await self._rest.handle(request)

    def _page(self, request: Request) -> Response:
        return page_response(request, self.settings.gateway)

    async def _page_config(self, request: Request) -> Response:
        """The chat page's settings; the development key is given to the page of this machine only (AUT-12)."""
        info = RequestInfo.of(request)
        origins = Origins(self.settings.gateway)
        own_page = "origin" not in info.headers or is_same_origin(info.headers)
        is_given = own_page and info.headers.get("sec-fetch-site") not in ("cross-site", "same-site")
        if not (
            self.settings.accepts_development_key and is_given and origins.is_local(info.client, info.headers)
        ):
            return JSONResponse({"error": "not available"}, status_code=404, headers=SAME_ORIGIN_ONLY)
        config = {"key": f"{DEV_KEY_NAME}:{DEV_KEY_SECRET}", "wakeUrl": "/api/chat"}
        return JSONResponse(config, headers={**SAME_ORIGIN_ONLY, "Cache-Control": "no-store"})

    async def _healthy(self) -> Response:
        return JSONResponse({"status": "ok"})

    async def _ready(self) -> Response:
        try:
            services = self.running()
            async with asyncio.timeout(1.0):
                await services.redis.command("PING")
        except (TransportError, TimeoutError) as error:
            logger.warning("readiness.failed error=%r", error)
            # The address of Redis is in the log only: this path is public.
            reason = (
                error.info.message
                if isinstance(error, TransportError)
                else "Redis did not reply within a second"
            )
            return JSONResponse({"status": "unavailable", "reason": reason}, status_code=503)
        if not services.hub.connected:
            reason = "no notifications arrive from Redis"
            return JSONResponse({"status": "unavailable", "reason": reason}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        services = self.running()
        try:
            await require_operator(request, services)
        except TransportError as error:
            return error_response(error.info)
        agents = {rule.agent for rule in self.settings.namespaces if rule.agent is not None}
        statistics: Statistics | None = None
        try:
            async with asyncio.timeout(_STATISTICS_TIMEOUT_S):
                statistics = await read_statistics(services.redis, services.sessions.keys, agents)
        except (TransportError, TimeoutError) as error:
            # The metrics of this process are reported anyway.
            logger.warning("metrics.read_failed error=%r", error)
        return Response(services.metrics.render(statistics), media_type=CONTENT_TYPE)

    async def _observe(self, services: Services) -> None:
        while True:
            services.metrics.sessions.set(services.hub.sessions)
            services.metrics.collect()
            await asyncio.sleep(_OBSERVED_EVERY_S)


class CatchAllRoute(BaseRoute):
    """Matches every HTTP request, line breaks in its path and all: channel names may hold anything.

    A HEAD that no other route takes is the GET of the same path, without the body.
    """

    def __init__(self, endpoint: Callable[[Request], Awaitable[Response]], router: ASGIApp) -> None:
        self._app = request_response(endpoint)
        self._router = router

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Every HTTP request."""
        return (Match.FULL if scope["type"] == "http" else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one."""
        if scope["method"] == "HEAD":
            await answer_head(self._router, sent_in_layers(scope), receive, send)
        else:
            await self._app(scope, receive, send)


def create_app(settings: Settings, identify: Identify | None = None, *, group: Path | None = None) -> FastAPI:
    """A complete application: websocket, REST, plain HTTP API, page, operations.

    Mounted into another application, its lifespan does not run: use `Gateway` there (docs/embedding.md).
    """
    gateway = Gateway(settings, identify, group=group)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with gateway.lifespan():
            yield

    app = StreamingApplication(title=_TITLE, lifespan=lifespan, **_WITHOUT_DOCUMENTATION)
    gateway._complete(app)
    return app


class _Server(uvicorn.Server):
    """uvicorn that says when it serves, and sends clients away before it closes their sockets."""

    def __init__(
        self, config: uvicorn.Config, gateway: Gateway, on_ready: Callable[[], None], group: Path | None
    ) -> None:
        super().__init__(config)
        self._watching = Background("tls")
        self._group = group
        self._gateway = gateway
        self._on_ready = on_ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and Ctrl-C, and then end with status 0, as the service was asked to."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, then say so."""
        # No sockets for uvicorn: asyncio's server does not stop accepting before the descriptors are used up.
        await super().startup([])
        handshakes = self._handshakes()
        acceptors = [Acceptor(one, self._make_protocol, handshakes) for one in sockets or ()]
        if handshakes is not None:
            self._watching.start(handshakes.certificate.watch())
        if self._group is not None and self.started:
            siblings = listen_to_siblings(self._group, self._gateway.running().server_id)
            acceptors.append(Acceptor(siblings, self._make_protocol))
        for acceptor in acceptors:
            acceptor.start()
        self.servers = cast(list[asyncio.base_events.Server], acceptors)
        tune_gc()
        if self.started:
            self._on_ready()

    def _handshakes(self) -> Handshakes | None:
        settings = self._gateway.settings
        certificate = Certificate.of(settings.gateway)
        if certificate is None:
            return None
        timeout_s = settings.gateway.request_timeout_ms / 1000
        return Handshakes(certificate, timeout_s, settings.limits.unfinished_per_address)

    def _make_protocol(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, drain, then stop."""
        for server in self.servers:
            server.close()
        if self._gateway.services is not None:
            self._gateway.services.end_streams()
        if self._gateway.realtime is not None:
            await self._gateway.realtime.drain(self._gateway.settings.gateway.drain_ms / 1000)
        await super().shutdown(sockets)
        await self._watching.close()


def run_gateway(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Prints `ready http://HOST:PORT`, or `https://`, once everything answers.

    Raises StoreUnavailable or StoreUnsuitable when Redis cannot be used, InvalidArgument when the port or the certificate
    cannot.
    """
    scheme = "http" if Certificate.of(settings.gateway) is None else "https"
    asyncio.run(_check_redis(settings))
    listening = listen(settings.gateway.host, settings.gateway.port)
    if not (settings.accepted_keys or settings.issuers or settings.trusted_proxies):
        logger.warning(
            "gateway.no_credentials: neither [[keys]] nor [[issuers]] nor [[trusted_proxies]] are configured; see "
            "docs/authentication.md"
        )
    port = listening.getsockname()[1]
    host = f"[{settings.gateway.host}]" if ":" in settings.gateway.host else settings.gateway.host

    def ready() -> None:
        print(f"ready {scheme}://{host}:{port}", flush=True)

    if settings.gateway.processes > 1:
        supervise(settings, listening, ready, serve)
    else:
        serve(settings, listening, ready)


def serve(
    settings: Settings, listening: socket.socket, on_ready: Callable[[], None], group: Path | None = None
) -> None:
    """Serve on a listening socket in this process, until SIGTERM or Ctrl-C.

    `group`: a folder in which the processes that share the socket find each other.
    """
    raise_descriptor_limit()
    app = create_app(settings, group=group)
    config = uvicorn.Config(
        behind_local_proxies(app),
        proxy_headers=False,
        http=_http(settings),
        ws=RawWebSocket,
        ws_max_size=settings.gateway.max_frame_size,
        # Connections are pinged by `Realtime`.
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        # Request lines carry keys and tokens in their query.
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    server = _Server(config, app.state.gateway, on_ready, group)
    with tracing.tracing(settings, "selfhost-transport-gateway"):
        asyncio.run(server.serve(sockets=[listening]))
    if not server.started:
        raise SystemExit(1)


def _http(settings: Settings) -> type[UpgradingHttp]:
    """The HTTP protocol with the limits of the settings: uvicorn makes one for each connection."""

    class LimitedHttp(UpgradingHttp):
        head_timeout_s = settings.gateway.request_timeout_ms / 1000
        max_headless = settings.limits.unfinished_per_address

    return LimitedHttp


async def _check_redis(settings: Settings) -> None:
    stores = await Stores.open(settings)
    await stores.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises InvalidArgument when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only for sockets that name the protocol.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InvalidArgument(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    listening.listen(2048)
    return listening
