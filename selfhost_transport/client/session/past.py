"""The part of a session that was written before a client attached: read page by page, as far as it is wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from selfhost_transport.client.session.history_loader import HistoryLoader
from selfhost_transport.errors import TransportError
from selfhost_transport.turns.completeness import is_settled
from selfhost_transport.turns.events import TreeEvent
from selfhost_transport.turns.seed import Seed, check_resume_point, is_joined
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.view import TreeView as Window
from selfhost_transport.wire.message import Message

_log = logging.getLogger(__name__)


class PastSession(Protocol):
    """What is needed of a session to read its past."""

    # ruff: noqa: D102
    name: str
    tree: SessionTree
    attach_serial: str

    def require_ready(self) -> None: ...
    def fold(self, messages: Sequence[Message]) -> list[TreeEvent]: ...
    def apply(self, messages: Sequence[Message]) -> list[TreeEvent]: ...


class Past:
    """Reads older messages into the tree of a session."""

    def __init__(self, session: PastSession, history_limit: int) -> None:
        # Messages that the application has stored; they are shown in front of those read here.
        self.seed: Seed | None = None
        # The service let us in, but not to the history (REC-17).
        self.refused: TransportError | None = None
        self.loader: HistoryLoader | None = None
        self._session = session
        self._history_limit = history_limit
        # The past of this tree was not read yet.
        self._is_fresh = True
        # Events from folding it, the newest page first, until they are emitted.
        self._folded: list[list[TreeEvent]] = []
        self._settling: asyncio.Task[None] | None = None

    @property
    def has_older(self) -> bool:
        """Whether the service holds messages that are not in the tree."""
        return self.loader is not None and self.loader.has_older

    @property
    def is_read(self) -> bool:
        """Whether the past of the tree was read as far as it is wanted, or may not be."""
        return not self._is_fresh or self.refused is not None

    def begin_again(self) -> None:
        """The session has a new tree."""
        self._is_fresh, self._folded = True, []

    async def read(self, attach_serial: str) -> list[Message]:
        """What is to be folded after an attach, oldest first; see `take_folded` for what is folded already."""
        assert self.loader is not None
        messages = await self._joined(self.loader, attach_serial)
        self._is_fresh = False
        self.refused = None
        return messages

    async def _joined(self, loader: HistoryLoader, attach_serial: str) -> list[Message]:
        if self._history_limit == 0 and not loader.has_begun:
            loader.begin(attach_serial)
            return []
        # What is shown is counted in messages of the conversation, however many entries those are. A tree that nothing
        # has seen takes the pages as they come; one that is known is completed in one step, by the caller.
        window, is_fresh = Window(self._session.tree), self._is_fresh

        def enough(page: list[Message]) -> bool:
            if is_fresh:
                self._folded.append(self._session.fold(page))
            return not is_fresh or window.is_read(self._history_limit)

        loader.expect(self._history_limit)
        past = await loader.join(attach_serial, enough)
        return [] if is_fresh else past

    def take_folded(self) -> list[list[TreeEvent]]:
        """The events of pages that were folded while they were read, the oldest page first."""
        folded, self._folded = self._folded, []
        return folded[::-1]

    async def load_older(self) -> bool:
        """Read one more page into the tree; False when there is none. Raises CapabilityError, TransportError."""
        loader = self._readable()
        if not loader.has_older:
            return False
        self._session.apply(await loader.older())
        return True

    async def read_until(self, enough: Callable[[], bool], *, wanted: int = 100) -> None:
        """Read older messages, probably so many `wanted`, until there are enough or no more. Raises as `load_older`."""
        if self.loader is not None:
            self.loader.expect(wanted)
        while not enough() and await self.load_older():
            continue

    async def join_seed(self, seed: Seed) -> None:
        """Read back to where the stored messages end, and show them in front from then on.

        Raises ResumePointLost where messages may be in neither (HYD-6), CapabilityError without the right to the history.
        """
        loader, session = self._readable(), self._session
        await self.read_until(lambda: is_joined(seed, session.tree, loader.oldest))
        if not self.has_older:
            check_resume_point(seed, session.tree, epoch_of(session.attach_serial), loader.truncated_at)
        self.seed = seed

    def settle_later(self) -> None:
        """A message may refer to one that was not read here, such as an edit of an old message: read back to it."""
        if self.has_older and self.refused is None and self._settling is None and not self._is_settled():
            self._settling = asyncio.create_task(self._settle())

    async def stop(self) -> None:
        """Read nothing more by itself."""
        if self._settling is not None:
            self._settling.cancel()
            await asyncio.gather(self._settling, return_exceptions=True)

    def _readable(self) -> HistoryLoader:
        self._session.require_ready()
        if self.refused is not None:
            raise self.refused
        assert self.loader is not None
        return self.loader

    def _is_settled(self) -> bool:
        """Whether the messages read so far determine the shown branch."""
        if self.seed is None:
            return is_settled(self._session.tree)
        return self.loader is None or is_joined(self.seed, self._session.tree, self.loader.oldest)

    async def _settle(self) -> None:
        try:
            await self.read_until(self._is_settled)
        except TransportError as error:
            _log.warning("history.not_settled session=%s error=%s", self._session.name, error)
        finally:
            self._settling = None


def epoch_of(serial: str) -> str:
    """The epoch that a serial names; '' for none."""
    return serial.partition("@")[2].partition(":")[0]
