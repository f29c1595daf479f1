"""A view of the session for one user interface: its branch, its window, and sending from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from selfhost_transport.client.arguments import require_callable, require_int, require_text
from selfhost_transport.client.emitter import Emitter, Unsubscribe
from selfhost_transport.client.session import requests
from selfhost_transport.client.session.content import Content
from selfhost_transport.client.session.requests import SendPolicy, TurnFilter
from selfhost_transport.client.session.turn import Turn
from selfhost_transport.errors import InvalidArgument, NotFound
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.anchors import Anchor
from selfhost_transport.turns.events import TreeEvent
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.seed import before
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.ui import ConversationMessage
from selfhost_transport.turns.view import BranchSelection, MessagesChanged, ViewEvent
from selfhost_transport.turns.view import TreeView as Window

if TYPE_CHECKING:
    from selfhost_transport.client.session.session import Sent, Session

ViewCallback = Callable[[ViewEvent], object]


class View:
    """The selected branch of the conversation. Several views of one session are independent."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._window = self._new_window()
        # Messages to show once the past of a new tree was read.
        self._owed = 0
        # The messages in front of the window, and the tree state they belong to.
        self._stored: list[ConversationMessage] = []
        self._stored_version: tuple[SessionTree, int] | None = None
        self._changes: Emitter[ViewEvent] = Emitter(session.report_failure)
        self._paging = asyncio.Lock()
        self._follow: Unsubscribe | None = None

    def __repr__(self) -> str:
        return f"<View of {self._session.name!r}: {len(self.messages)} messages, has_older={self.has_older}>"

    # Reading

    @property
    def messages(self) -> list[ConversationMessage]:
        """The visible messages, oldest first."""
        return [*self._before(), *self._current().messages()]

    @property
    def runs(self) -> list[RunInfo]:
        """The turns that the visible messages belong to."""
        return self._current().runs()

    @property
    def has_older(self) -> bool:
        """Whether `load_older` has more to show; with a seed, which is shown whole, never."""
        return self._session.past.seed is None and (
            self._current().hidden_count > 0 or self._session.past.has_older
        )

    async def load_older(self, limit: int = 10) -> list[ConversationMessage]:
        """Show up to `limit` older messages: those, oldest first; [] when there are none.

        Concurrent calls take their turns. Raises CapabilityError without the right to read the history.
        """
        require_int("limit", limit, 1)
        if self._session.past.seed is not None:
            return []
        async with self._paging:
            await self._session.past.read_until(lambda: self._current().can_reveal(limit), wanted=limit)
            return self._current().reveal(limit)

    def reveal(self, count: int) -> list[ConversationMessage]:
        """Show up to `count` older messages of those that were read already."""
        return self._current().reveal(count)

    def subscribe(self, callback: ViewCallback) -> Unsubscribe:
        """Subscribe to changes of this view."""
        require_callable("callback", callback)
        if self._follow is None:
            # Up to date first, so that the first event is about a change.
            self._current().messages()
            self._follow = self._session.on_tree.subscribe(self._on_tree)
        return self._changes.subscribe(callback)

    # Branches

    def branch_selection(self, codec_message_id: str) -> BranchSelection:
        """The alternatives at a message."""
        return self._current().branch_selection(codec_message_id)

    def select(self, codec_message_id: str, index: int) -> None:
        """Show another alternative at a message (by any of them); other views are not affected.

        The index is clamped; at a message without alternatives nothing changes. Raises NotFound.
        """
        self._require_known(codec_message_id)
        require_int("index", index)
        window = self._current()
        hidden = window.hidden_count
        events = window.select(codec_message_id, index)
        # Messages hidden above the fork stay hidden; the requested branch is shown.
        window.reveal(window.hidden_count - hidden)
        self._notify(events)

    async def select_for_all(self, codec_message_id: str, index: int) -> None:
        """Show another alternative at a message in every view, of late joiners too, until the next selection.

        Views of Python clients follow; those of other SDKs keep their own. Raises CapabilityError, NotFound.
        """
        self._session.require_ready()
        self._require_known(codec_message_id)
        require_int("index", index)
        head = self._current().alternative(codec_message_id, index)
        if head is not None:
            await self._session.publish_input(requests.branch_selected(head, self._session.client_id))

    # Sending

    def start(
        self,
        content: Content,
        *,
        policy: SendPolicy | str | None = None,
        parent: str | None = None,
        id: str | None = None,  # noqa: A002
    ) -> Turn:
        """`send` without waiting: the turn is returned at once; `turn.accepted` has the service's reply."""
        anchor = Anchor(require_text("parent", parent)) if parent is not None else None
        return self._send(content, anchor, id, _policy(policy)).turn

    async def send(
        self,
        content: Content,
        *,
        policy: SendPolicy | str | None = None,
        parent: str | None = None,
        id: str | None = None,  # noqa: A002
    ) -> Turn:
        """Send a user's message below the last visible one, or below `parent`; its turn once it is accepted.

        The message is visible at once. While there is no connection the send waits for one; sending again with
        the same `id` is the same send. Raises Busy (policy reject), RateLimited (queue or outbox full),
        Conflict (another message under this id), CapabilityError, SessionClosed.
        """
        anchor = Anchor(require_text("parent", parent)) if parent is not None else None
        await self._read_newest()
        return await _accepted(self._send(content, anchor, id, _policy(policy)))

    async def interrupt(
        self,
        content: Content,
        *,
        turns: TurnFilter = requests.OWN,
        id: str | None = None,  # noqa: A002
    ) -> Turn:
        """Cancel turns (default: one's own) and send, in one atomic step."""
        if self._session.agent is None:
            await self._session.cancel(turns)
            return await self.send(content, id=id)
        return await _accepted(self._send(content, None, id, turns.interrupt_headers()))

    async def edit(
        self,
        codec_message_id: str,
        content: Content,
        *,
        cancel_active: bool = False,
        id: str | None = None,  # noqa: A002
    ) -> Turn:
        """Send another message in place of a user's one; the old branch is kept.

        `cancel_active` ends one's own turns in the same step; without it nothing is cancelled.
        """
        await self._require(codec_message_id)
        extra = requests.OWN.interrupt_headers() if cancel_active else {}
        anchor = self._stored_anchor(codec_message_id) or self._current().edit_anchor(codec_message_id)
        sent = self._send(content, replace(anchor, fork_of=codec_message_id), id, extra)
        assert sent.turn.input_codec_message_id is not None
        self._notify(self._current().select_own(sent.turn.input_codec_message_id))
        return await _accepted(sent)

    async def regenerate(
        self,
        codec_message_id: str,
        *,
        cancel_active: bool = False,
        id: str | None = None,  # noqa: A002
    ) -> Turn:
        """Ask for another answer in place of one; the old one is kept."""
        await self._require(codec_message_id)
        anchor = self._stored_anchor(codec_message_id) or self._current().regenerate_anchor(codec_message_id)
        ids = requests.ids_for(id)
        extra = requests.OWN.interrupt_headers() if cancel_active else {}
        known = self._session.tree.trigger(ids.codec_message_id)
        messages = requests.regenerate(
            known.regenerates if known and known.regenerates else anchor.regenerates or codec_message_id,
            ids,
            client_id=self._session.client_id,
            parent=known.parent if known else anchor.parent,
            extra=extra,
        )
        self._current().expect_answer(ids.codec_message_id)
        return await _accepted(self._session.send(messages, ids))

    # Parts of the above

    def _send(
        self, content: Content, anchor: Anchor | None, codec_message_id: str | None, extra: Mapping[str, str]
    ) -> Sent:
        self._session.require_ready()
        ids = requests.ids_for(codec_message_id)
        node = self._session.tree.owner_of(ids.codec_message_id)
        if node is not None:
            # A repeat: below the same message as the first time, wherever the view is by now.
            anchor = Anchor(node.parent, fork_of=node.fork_of)
        elif anchor is None:
            anchor = self._send_anchor()
        messages = requests.user_message(
            content,
            ids,
            client_id=self._session.client_id,
            parent=anchor.parent,
            fork_of=anchor.fork_of,
            extra={**extra, **self._first(anchor)},
            form=self._session.codec.input_form,
        )
        return self._session.send(messages, ids)

    def _first(self, anchor: Anchor) -> dict[str, str]:
        """Says that there is no parent: who sends at the same time sends a message beside this one (CON-11)."""
        is_first = anchor.parent is None and anchor.fork_of is None and not self._session.past.has_older
        return {h.FIRST: "true"} if is_first else {}

    def _send_anchor(self) -> Anchor:
        anchor = self._current().send_anchor()
        seed = self._session.past.seed
        return Anchor(seed.last_codec_message_id) if anchor.parent is None and seed is not None else anchor

    async def _read_newest(self) -> None:
        """If nothing else anchors a send, find the message that it follows, although none is shown."""
        session = self._session
        session.require_ready()
        if session.agent is None and session.past.has_older and session.past.refused is None:
            await session.past.read_until(lambda: self._current().is_read(1), wanted=1)

    def _stored_anchor(self, codec_message_id: str) -> Anchor | None:
        """What a message hangs below that the application has stored, and the session no longer has."""
        seed = self._session.past.seed
        if seed is None or self._session.tree.owner_of(codec_message_id) is not None:
            return None
        at = seed.index_of(codec_message_id, codec_message_id)
        return None if at is None else Anchor(seed.codec_message_id_at(at - 1))

    async def _require(self, codec_message_id: str) -> None:
        """Read back to a message, whose place in the tree determines where its replacement hangs."""
        self._session.require_ready()
        session = self._session
        if session.past.has_older and session.past.refused is None:
            await session.past.read_until(lambda: session.tree.has_whole(codec_message_id))
        self._require_known(codec_message_id)

    def _require_known(self, codec_message_id: str) -> None:
        seed = self._session.past.seed
        stored = seed is not None and seed.index_of(codec_message_id, codec_message_id) is not None
        if not stored and self._session.tree.message(codec_message_id) is None:
            older = "; load_older() reads more of the history" if self._session.past.has_older else ""
            raise NotFound(f"message {codec_message_id!r} has not been loaded from this session{older}")

    def _current(self) -> Window:
        """The window on the session's tree, which is another one after the session was made again."""
        if self._window.tree is not self._session.tree:
            # What was shown before is shown again, as far as it is still there, once the past was read.
            self._owed = max(self._owed, len(self._window.messages()))
            self._window = self._new_window()
        if self._owed and self._session.past.is_read:
            owed, self._owed = self._owed, 0
            self._window.reveal(owed)
        return self._window

    def _new_window(self) -> Window:
        # Behind a seed everything that was read is shown.
        seed = self._session.past.seed
        if seed is not None:
            return Window(self._session.tree)
        return Window(self._session.tree, self._session.attach_serial)

    def _before(self) -> list[ConversationMessage]:
        """The stored messages that were not read from the session."""
        seed, tree = self._session.past.seed, self._session.tree
        if seed is None:
            return []
        version = (tree, tree.structure_version)
        if self._stored_version != version:
            self._stored, self._stored_version = before(seed, tree), version
        return self._stored

    def _on_tree(self, events: list[TreeEvent]) -> None:
        known, owed = self._window, self._owed
        window = self._current()
        is_another = window is not known or owed != self._owed
        self._notify([*([MessagesChanged()] if is_another else []), *window.update(events)])

    def _notify(self, events: list[ViewEvent]) -> None:
        for event in events:
            self._changes.emit(event)


async def _accepted(sent: Sent) -> Turn:
    # Who stops waiting does not take the message back.
    await asyncio.shield(sent.receipt)
    return sent.turn


def _policy(policy: SendPolicy | str | None) -> dict[str, str]:
    if policy is None:
        return {}
    try:
        return {h.TURN_POLICY: SendPolicy(policy).value}
    except ValueError:
        raise InvalidArgument(f"policy is one of {', '.join(SendPolicy)}, not {policy!r}") from None


__all__ = ["BranchSelection", "MessagesChanged", "View", "ViewCallback", "ViewEvent"]
