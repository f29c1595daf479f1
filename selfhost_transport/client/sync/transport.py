"""The client for programs without an event loop: the same verbs, each waiting for its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from selfhost_transport.client.cancel_result import CancelResult
from selfhost_transport.client.connection.credentials import TokenCallback
from selfhost_transport.client.emitter import Unsubscribe
from selfhost_transport.client.session.content import Content
from selfhost_transport.client.session.requests import SendPolicy
from selfhost_transport.client.session.view import BranchSelection, View
from selfhost_transport.client.sync.loop import LoopThread
from selfhost_transport.client.sync.turn import SyncTurn
from selfhost_transport.client.transport import ClientTransport, CloseScope, EventName
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.seed import Seed, Stored
from selfhost_transport.turns.ui import ConversationMessage


class SyncView:
    """A view of the conversation; see `View`."""

    def __init__(self, loop: LoopThread, view: View) -> None:
        self._loop = loop
        self._view = view

    def __repr__(self) -> str:
        return self._loop.call(lambda: repr(self._view)).replace("<View", "<SyncView", 1)

    @property
    def messages(self) -> list[ConversationMessage]:
        """The visible messages, oldest first."""
        return self._loop.call(lambda: self._view.messages)

    @property
    def has_older(self) -> bool:
        """Whether `load_older` has more to show."""
        return self._loop.call(lambda: self._view.has_older)

    def load_older(self, limit: int = 10) -> list[ConversationMessage]:
        """Show older messages; those, oldest first."""
        return self._loop.run(self._view.load_older(limit))

    def send(
        self,
        content: Content,
        *,
        policy: SendPolicy | str | None = None,
        parent: str | None = None,
        id: str | None = None,  # noqa: A002
        timeout: float | None = None,
    ) -> SyncTurn:
        """Send a user's message; its turn once it is accepted. A send that timed out may be repeated by its id."""
        sending = self._view.send(content, policy=policy, parent=parent, id=id)
        return SyncTurn(self._loop, self._loop.run(sending, timeout))

    def edit(
        self,
        codec_message_id: str,
        content: Content,
        *,
        cancel_active: bool = False,
        id: str | None = None,  # noqa: A002
    ) -> SyncTurn:
        """Send another message in place of a user's one; the old branch is kept."""
        editing = self._view.edit(codec_message_id, content, cancel_active=cancel_active, id=id)
        return SyncTurn(self._loop, self._loop.run(editing))

    def regenerate(
        self,
        codec_message_id: str,
        *,
        cancel_active: bool = False,
        id: str | None = None,  # noqa: A002
    ) -> SyncTurn:
        """Ask for another answer in place of one; the old one is kept."""
        asking = self._view.regenerate(codec_message_id, cancel_active=cancel_active, id=id)
        return SyncTurn(self._loop, self._loop.run(asking))

    def branch_selection(self, codec_message_id: str) -> BranchSelection:
        """The alternatives at a message."""
        return self._loop.call(lambda: self._view.branch_selection(codec_message_id))

    def select(self, codec_message_id: str, index: int) -> None:
        """Show another alternative at a message in this view."""
        self._loop.call(lambda: self._view.select(codec_message_id, index))

    def select_for_all(self, codec_message_id: str, index: int) -> None:
        """Show another alternative at a message in every view."""
        self._loop.run(self._view.select_for_all(codec_message_id, index))


class SyncClientTransport:
    """One client of one session, for threads; see `ClientTransport`. Use it as a context manager.

    Connect in the process that uses it: neither its thread nor its connection survives a fork.
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
        within: float | None = 30.0,
        **options: Any,
    ) -> None:
        """Connect; arguments and errors are those of `ClientTransport.connect`."""

        async def connected() -> ClientTransport:
            return await ClientTransport.connect(
                url, channel=channel, key=key, token=token, auth_callback=auth_callback, client_id=client_id,
                endpoints=endpoints, seed=seed, within=within, **options,
            )  # fmt: skip

        self._closed = False
        self._loop = LoopThread()
        try:
            self._transport = self._loop.run(connected())
            self._view = SyncView(self._loop, self._loop.call(lambda: self._transport.view))
        except BaseException:
            self._loop.close()
            raise

    def __repr__(self) -> str:
        return repr(self._transport).replace("<Client", "<SyncClient", 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, cancel: CloseScope | None = None) -> None:
        """Leave the session; with `cancel` end turns first."""
        if not self._closed:
            self._closed = True
            if self._loop.is_forked:
                # The session is the parent's; here there is nothing to close.
                return
            self._loop.run(self._transport.close(cancel))
            self._loop.close()

    @property
    def channel(self) -> str:
        """Name of the session."""
        return self._transport.channel

    @property
    def client_id(self) -> str | None:
        """Who this client is, as the service verified it; None is anonymous."""
        return self._loop.call(lambda: self._transport.client_id)

    @property
    def connected(self) -> bool:
        """Whether there is a live connection at this moment."""
        return not self._closed and self._loop.call(lambda: self._transport.connected)

    @property
    def view(self) -> SyncView:
        """The conversation along the branch that is shown."""
        return self._view

    @property
    def messages(self) -> list[ConversationMessage]:
        """The visible messages, oldest first."""
        return self._view.messages

    @property
    def active_turns(self) -> Mapping[str, set[str]]:
        """Open turns, by client id of the owner and of the agent."""
        return self._loop.call(lambda: self._transport.active_turns)

    def send(
        self,
        content: Content,
        *,
        policy: SendPolicy | str | None = None,
        parent: str | None = None,
        id: str | None = None,  # noqa: A002
        timeout: float | None = None,
    ) -> SyncTurn:
        """`view.send`."""
        return self._view.send(content, policy=policy, parent=parent, id=id, timeout=timeout)

    def interrupt(
        self,
        content: Content,
        *,
        turn_id: str | SyncTurn | None = None,
        client_id: str | None = None,
        all: bool = False,  # noqa: A002
        id: str | None = None,  # noqa: A002
    ) -> SyncTurn:
        """Cancel turns (default: one's own) and send, in one atomic step."""
        work = self._transport.interrupt(
            content, turn_id=_id_of(turn_id), client_id=client_id, all=all, id=id
        )
        return SyncTurn(self._loop, self._loop.run(work))

    def cancel(
        self,
        turn_id: str | SyncTurn | None = None,
        *,
        client_id: str | None = None,
        all: bool = False,  # noqa: A002
        connection: bool = False,
    ) -> CancelResult:
        """End turns; see `ClientTransport.cancel`."""
        work = self._transport.cancel(_id_of(turn_id), client_id=client_id, all=all, connection=connection)
        return self._loop.run(work)

    def wait_for_turn(
        self,
        turn_id: str | SyncTurn | None = None,
        *,
        client_id: str | None = None,
        all: bool = False,  # noqa: A002
        timeout: float | None = None,
    ) -> None:
        """Wait until none of the turns is open; see `ClientTransport.wait_for_turn`."""
        self._loop.run(self._transport.wait_for_turn(_id_of(turn_id), client_id=client_id, all=all), timeout)

    def turns(self) -> list[RunInfo]:
        """All turns known."""
        return self._loop.call(self._transport.turns)

    def turn(self, turn_id: str) -> SyncTurn:
        """The handle of any turn of the session."""
        return SyncTurn(self._loop, self._loop.call(lambda: self._transport.turn(turn_id)))

    def load_older(self, limit: int = 10) -> list[ConversationMessage]:
        """`view.load_older`."""
        return self._view.load_older(limit)

    def on(self, event: EventName, callback: Callable[[Any], object]) -> Unsubscribe:
        """Subscribe to events, called in the client's thread: a callback may not call this client; see `ClientTransport.on`."""
        on: Callable[[Any, Callable[[Any], object]], Unsubscribe] = self._transport.on
        return self._loop.call(lambda: on(event, callback))


def _id_of(turn: str | SyncTurn | None) -> str | None:
    return turn.turn_id if isinstance(turn, SyncTurn) else turn
