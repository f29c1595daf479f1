"""The client of one session: connect, send, follow, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, get_args, overload

import httpx

from selfhost_transport.client.arguments import require_callable, require_text
from selfhost_transport.client.cancel_result import CancelResult
from selfhost_transport.client.connection.credentials import TokenCallback, make_credentials
from selfhost_transport.client.connection.driver import Connection
from selfhost_transport.client.connection.endpoint import parse_endpoints
from selfhost_transport.client.connection.socket import Dial, dial_websocket
from selfhost_transport.client.connection.state import ConnectionState, StateChange
from selfhost_transport.client.connection.tls import tls_context
from selfhost_transport.client.emitter import Unsubscribe
from selfhost_transport.client.options import ClientOptions, require_channel, require_client_id
from selfhost_transport.client.rest import HistoryPage, RestClient
from selfhost_transport.client.session.content import Content
from selfhost_transport.client.session.events import Discontinuity, Entry, Waiting
from selfhost_transport.client.session.history_loader import HistoryLoader
from selfhost_transport.client.session.requests import TurnFilter
from selfhost_transport.client.session.session import Session
from selfhost_transport.client.session.turn import Turn
from selfhost_transport.client.session.view import View
from selfhost_transport.errors import ConnectionFailed, InvalidArgument, SessionClosed, TransportError
from selfhost_transport.turns.codecs import codec_named
from selfhost_transport.turns.events import MessageChanged, Promoted, TreeEvent, TurnChanged
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.seed import Seed, Stored
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.frame import AckResult
from selfhost_transport.wire.message import Message

CloseScope = Literal["own", "all"]
EventName = Literal["turn", "message", "promoted", "error", "discontinuity", "state", "entry", "waiting"]


class ClientTransport:
    """One client of one session. Use it as `async with ClientTransport.connect(…) as transport`.

    Losing the connection needs no attention: it is made again, missed entries are fetched, sends wait. A session
    exists from its first use. All methods are called from the event loop's thread; see `SyncClientTransport`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        channel: str,
        key: str | None = None,
        token: str | None = None,
        auth_callback: TokenCallback | None = None,
        client_id: str | None = None,
        endpoints: Sequence[str] = (),
        seed: Seed | Sequence[Stored] | None = None,
        options: ClientOptions | None = None,
        dial: Dial | None = None,
        http: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a client; `connect` is the usual way. `dial` and `http` take the place of the network.

        Raises InvalidArgument, InvalidChannelName, BadRequest for a malformed key.
        """
        self.channel = require_channel(channel)
        self._options = options or ClientOptions()
        self._endpoints = parse_endpoints(url, endpoints)
        credentials = make_credentials(key, token, auth_callback)
        self._session = Session(
            self.channel,
            require_client_id(client_id),
            self._options.history_limit,
            codec_named(self._options.codec),
        )
        tls = tls_context(self._endpoints, self._options.ssl_context, self._options.ca_file)
        self._rest = RestClient(credentials, self.channel, self._options.format, tls, http)
        self._connection = Connection(
            self._endpoints,
            credentials,
            self.channel,
            self._session,
            client_id=client_id,
            # Asks the service to say which agent the namespace is bound to, if any.
            channel_params={"turns": "1", **self._options.channel_params},
            options=self._options,
            dial=dial or partial(dial_websocket, tls=tls),
        )
        loader = HistoryLoader(self._rest, lambda: self._connection.endpoint, self._options.page_size)
        self._session.use(self._connection, loader, self._rest)
        self._seed = None if seed is None else Seed.of(seed)
        self._view: View | None = None
        self._closed = False

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        channel: str,
        key: str | None = None,
        token: str | None = None,
        auth_callback: TokenCallback | None = None,
        client_id: str | None = None,
        endpoints: Sequence[str] = (),
        seed: Seed | Sequence[Stored] | None = None,
        within: float | None = 30.0,
        **options: Any,
    ) -> Connecting:
        """Connect and attach; await the result, or use it with `async with`, which also closes.

        `endpoints` are further gateways to try; `options` are the fields of ClientOptions. Raises InvalidArgument
        at once for unusable arguments; awaiting raises Unauthorized, CapabilityError, and ConnectionFailed when
        the session could not be attached `within` so many seconds (None: no limit).

        `seed`: the conversation as the application has stored it, oldest first. It is shown in front of what is read of
        the session, which begins where the seed ends; an empty one reads the whole history. Awaiting
        raises ResumePointLost where messages may be missing in between.
        """
        transport = cls(
            url,
            channel=channel,
            key=key,
            token=token,
            auth_callback=auth_callback,
            client_id=client_id,
            endpoints=endpoints,
            seed=seed,
            options=_make_options(options),
        )
        return Connecting(transport, within)

    def __repr__(self) -> str:
        who = self.client_id or "anonymous"
        return f"<ClientTransport {self.channel!r} as {who} at {self._connection.endpoint.netloc}: {self.state.value}>"

    async def open(self, within: float | None = 30.0) -> Self:
        """Connect and attach; does nothing when that was done. Raises as `connect` does."""
        self._session.check_usable()
        self._connection.start()
        try:
            async with asyncio.timeout(within):
                with self._session.reporting("the session to be attached"):
                    await self._session.ready
                if self._seed is not None and self._session.past.seed is None:
                    await self._session.past.join_seed(self._seed)
        except TimeoutError:
            reason, why = self._session.trouble, self._session.why_waiting()
            await self.close()
            raise ConnectionFailed(
                f"the session could not be attached within {within} s: {why}",
                code=80000, status_code=408, cause=reason,
            ) from None  # fmt: skip
        except BaseException:
            await self.close()
            raise
        if self._view is None:
            self._view = View(self._session)
            self._view.reveal(self._options.history_limit)
        return self

    async def close(self, cancel: CloseScope | None = None) -> None:
        """Leave the session. Local only, so turns continue; `cancel` ends them first.

        Raises what the cancel raises, ConnectionFailed when there is no connection for it; closed it is anyway.
        """
        if self._closed:
            return
        try:
            if cancel is not None:
                async with asyncio.timeout(self._options.connect_timeout):
                    await self._session.cancel(TurnFilter(all=cancel == "all"))
        except TimeoutError:
            raise ConnectionFailed("the turns could not be cancelled: not connected") from None
        finally:
            await self._leave()

    async def _leave(self) -> None:
        self._closed = True
        self._session.give_up(SessionClosed("the transport is closed"))
        await self._connection.close()
        await self._session.stop()
        await self._rest.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # The connection

    @property
    def state(self) -> ConnectionState:
        """State of the connection."""
        return self._connection.core.state

    @property
    def connected(self) -> bool:
        """Whether there is a live connection at this moment."""
        return self.state is ConnectionState.CONNECTED

    @property
    def client_id(self) -> str | None:
        """Who this client is, as the service verified it; None is anonymous."""
        return self._session.client_id

    @property
    def connection_id(self) -> str | None:
        """Id of the connection; survives a resume."""
        return self._connection.core.connection_id

    @property
    def agent(self) -> str | None:
        """The agent that answers in this session's namespace; None where agents are ordinary participants."""
        return self._session.agent

    @property
    def position(self) -> str | None:
        """The newest position delivered, a channelSerial."""
        return self._connection.core.position

    def drop_connection(self) -> None:
        """Cut the socket as a network failure would, to see an application cope; it recovers by itself."""
        self._connection.drop()

    # The conversation

    @property
    def view(self) -> View:
        """The default view. Raises InvalidArgument before the transport is open."""
        if self._view is None:
            self._session.require_ready()
            self._view = View(self._session)
        return self._view

    def new_view(self) -> View:
        """Another view, with a selection and a window of its own."""
        self._session.require_ready()
        return View(self._session)

    @property
    def tree(self) -> SessionTree:
        """All branches, as far as they were read. Do not change it."""
        return self._session.tree

    async def history(self, limit: int = 100) -> HistoryPage:
        """The newest page of channel messages as the service holds them. Raises CapabilityError, ServiceError."""
        return await self._rest.history(self._connection.endpoint, from_serial=None, limit=limit)

    async def older_history(self, page: HistoryPage) -> HistoryPage | None:
        """The page before another one; None at the beginning."""
        if page.next_query is None:
            return None
        return await self._rest.page(self._connection.endpoint, page.next_query)

    async def publish(self, messages: list[Message]) -> AckResult:
        """Publish channel messages of the application's own."""
        self._session.require_ready()
        return await self._connection.publish(messages)

    # Turns

    async def interrupt(
        self,
        content: Content,
        *,
        turn_id: str | Turn | None = None,
        client_id: str | None = None,
        all: bool = False,  # noqa: A002
        id: str | None = None,  # noqa: A002
    ) -> Turn:
        """Cancel turns (default: one's own) and send, in one atomic step."""
        return await self.view.interrupt(content, turns=TurnFilter(_id_of(turn_id), client_id, all), id=id)

    async def cancel(
        self,
        turn_id: str | Turn | None = None,
        *,
        client_id: str | None = None,
        all: bool = False,  # noqa: A002
        connection: bool = False,
    ) -> CancelResult:
        """End one turn, a client's turns, what was sent here (`connection`), all turns, or (default) one's own.

        Nothing matched is no error. When it returns, every entry received so far is older than `position`,
        and no text of the turns that matched follows.
        """
        return await self._session.cancel(TurnFilter(_id_of(turn_id), client_id, all, connection))

    async def wait_for_turn(
        self,
        turn_id: str | Turn | None = None,
        *,
        client_id: str | None = None,
        all: bool = False,  # noqa: A002
    ) -> None:
        """Wait until none of the turns is open, named as for `cancel`; returns at once if none is."""
        self._session.require_ready()
        await self._session.wait_for(TurnFilter(_id_of(turn_id), client_id, all))

    @property
    def active_turns(self) -> Mapping[str, set[str]]:
        """Open turns, by client id of the owner and of the agent."""
        return self._session.tree.active_turns()

    def turns(self) -> list[RunInfo]:
        """All turns known, in order, pending ones last."""
        return self._session.tree.turns()

    def turn(self, turn_id: str) -> Turn:
        """The handle of any turn of the session, one's own or not."""
        return self._session.turn(require_text("turn_id", turn_id))

    def turn_for(self, codec_message_id: str) -> Turn:
        """The handle of the turn that a message asks for, also before it was sent."""
        return self._session.turn_for_input(codec_message_id)

    def turn_of(self, codec_message_id: str) -> str | None:
        """The id of the turn a message belongs to; of an input, the turn it asked for."""
        return self._session.tree.turn_of(codec_message_id)

    # Events

    @overload
    def on(self, event: Literal["turn"], callback: Callable[[RunInfo], object]) -> Unsubscribe: ...
    @overload
    def on(self, event: Literal["message"], callback: Callable[[MessageChanged], object]) -> Unsubscribe: ...
    @overload
    def on(self, event: Literal["promoted"], callback: Callable[[Promoted], object]) -> Unsubscribe: ...
    @overload
    def on(self, event: Literal["error"], callback: Callable[[TransportError], object]) -> Unsubscribe: ...
    @overload
    def on(
        self, event: Literal["discontinuity"], callback: Callable[[Discontinuity], object]
    ) -> Unsubscribe: ...
    @overload
    def on(self, event: Literal["state"], callback: Callable[[StateChange], object]) -> Unsubscribe: ...
    @overload
    def on(self, event: Literal["entry"], callback: Callable[[Entry], object]) -> Unsubscribe: ...
    @overload
    def on(self, event: Literal["waiting"], callback: Callable[[Waiting], object]) -> Unsubscribe: ...
    def on(self, event: EventName, callback: Callable[[Any], object]) -> Unsubscribe:
        """Subscribe to events of one kind; returns a function that unsubscribes.

        `turn`: a turn's state changed. `message`: a message is new or has grown. `promoted`: an own message has its
        position. `error`: something failed that no call reports. `discontinuity`: entries may have been missed and
        the session was read again. `state`: of the connection. `entry`: each delivered message as it came. `waiting`: a
        call, or a turn that was sent here, has waited for five seconds, and why; it is also logged.
        """
        require_callable("callback", callback)
        match event:
            case "turn":
                return self._on_tree(lambda e: callback(e.turn) if isinstance(e, TurnChanged) else None)
            case "message":
                return self._on_tree(lambda e: callback(e) if isinstance(e, MessageChanged) else None)
            case "promoted":
                return self._on_tree(lambda e: callback(e) if isinstance(e, Promoted) else None)
            case "error":
                return self._session.on_error.subscribe(callback)
            case "discontinuity":
                return self._session.on_discontinuity.subscribe(callback)
            case "state":
                return self._session.on_state.subscribe(callback)
            case "entry":
                return self._session.on_entry.subscribe(callback)
            case "waiting":
                return self._session.long_waits.changes.subscribe(callback)
        raise InvalidArgument(f"unknown event {event!r}; known are {', '.join(get_args(EventName))}")

    def _on_tree(self, notify: Callable[[TreeEvent], object]) -> Unsubscribe:
        def each(events: list[TreeEvent]) -> None:
            for event in events:
                notify(event)

        return self._session.on_tree.subscribe(each)


class Connecting:
    """A connecting transport: await it, or enter it."""

    def __init__(self, transport: ClientTransport, within: float | None) -> None:
        self._transport = transport
        self._within = within

    def __repr__(self) -> str:
        return f"<Connecting to {self._transport.channel!r}: await it, or use it with `async with`>"

    def __getattr__(self, name: str) -> NoReturn:
        hint = "; await it first" if hasattr(ClientTransport, name) else ""
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self
        )

    def __await__(self) -> Generator[object, None, ClientTransport]:
        return self._transport.open(self._within).__await__()

    async def __aenter__(self) -> ClientTransport:
        return await self._transport.open(self._within)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()


def _id_of(turn: str | Turn | None) -> str | None:
    """The id of a turn that is named by its id or its handle. Raises InvalidArgument for a handle without one."""
    if isinstance(turn, Turn):
        if turn.turn_id is None:
            raise InvalidArgument(
                "the turn has no id yet: call its own `cancel()`, or await turn.started first"
            )
        return turn.turn_id
    return turn


def _make_options(given: Mapping[str, Any]) -> ClientOptions:
    unknown = set(given) - set(ClientOptions.__dataclass_fields__)
    if unknown:
        known = ", ".join(ClientOptions.__dataclass_fields__)
        raise InvalidArgument(f"unknown option {sorted(unknown)[0]!r}; there are {known}")
    return ClientOptions(**given)


__all__ = ["ClientTransport", "Connecting"]
