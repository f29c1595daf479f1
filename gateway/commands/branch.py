"""Reading a session's branch back from its newest message, as far as needed: a page is never taken for the whole (P14)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final
from weakref import WeakKeyDictionary

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.store.history import Page, Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns.completeness import newest_message
from selfhost_transport.turns.headers import FORK_OF, MSG_REGENERATE, Headers
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.view import TreeView
from selfhost_transport.turns.withholding import NOTHING, shown
from selfhost_transport.wire.sizes import publish_size

PAGE: Final = 200
"""Entries read, and folded, at a time: short enough not to hold up the event loop."""
MAX_READ: Final = 100_000
"""Entries after which one request reads no further: a session may hold any number of an application's own."""
MAX_READ_BYTES: Final = 64 * 2**20
"""Bytes after which it reads no further: what is read is held until the request is answered."""
DEEP_BYTES: Final = 4 * 2**20
DEEP_READS: Final = 4
"""Requests of one process that read further back than DEEP_BYTES at a time; the others wait."""
# Entries of a page where the newest turn is usually enough.
_ANCHOR_PAGE: Final = 4


async def find_parent(sessions: SessionStore, session: str, headers: Headers) -> str | None:
    """What an input hangs below that does not say so itself; None: it is the first message.

    An edit and another answer stand beside what they replace, everything else follows the newest message. Raises
    InvalidArgument where what is replaced lies too far back to look for.
    """
    tree = SessionTree(session)
    view = TreeView(tree)
    query = Query(limit=_ANCHOR_PAGE, visible=shown(NOTHING, conversation=True))
    edited, replaced = headers.get(FORK_OF), headers.get(MSG_REGENERATE)
    target = edited or replaced
    if target is None:
        await read_back(sessions, tree, query, lambda: newest_message(tree) is not None or view.is_read(1))
        return newest_message(tree) or view.send_anchor().parent
    page = await read_back(sessions, tree, query, lambda: tree.has_whole(target))
    if page.next_cursor is not None and not tree.has_whole(target):
        raise InvalidArgument(
            f"{target!r} is further back in the session than one request reads; name the parent of what replaces it"
        )
    return (view.edit_anchor(target) if edited else view.regenerate_anchor(target)).parent


async def read_back(
    sessions: SessionStore, tree: SessionTree, query: Query, enough: Callable[[], bool]
) -> Page:
    """Read the history into a tree, newest page first, until there is enough, or a limit. Returns the last page read."""
    read, size, is_deep = 0, 0, False
    async with AsyncExitStack() as held:
        while True:
            page = await sessions.history.page(tree.session or "", query)
            for message in reversed(page.messages):
                tree.apply(message)
            # What follows looks at the whole tree: others have their turn in between.
            await asyncio.sleep(0)
            read, size = read + len(page.messages), size + publish_size(page.messages)
            if page.next_cursor is None or read >= MAX_READ or size >= MAX_READ_BYTES or enough():
                return page
            if size >= DEEP_BYTES and not is_deep:
                is_deep = True
                await held.enter_async_context(_deep_reads(sessions))
            query = replace(query, cursor=page.next_cursor, limit=PAGE)


_deep: WeakKeyDictionary[SessionStore, asyncio.Semaphore] = WeakKeyDictionary()


def _deep_reads(sessions: SessionStore) -> asyncio.Semaphore:
    return _deep.setdefault(sessions, asyncio.Semaphore(DEEP_READS))
