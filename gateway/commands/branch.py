"""Reading a session's branch back from its newest message, as far as needed: a page is never taken for the whole (P14)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from selfhost_transport.store.history import Page, Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns.headers import FORK_OF, MSG_REGENERATE, Headers
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.turns.view import View

PAGE: Final = 200
"""Entries read, and folded, at a time: short enough not to hold up the event loop."""
# The same where the newest turn is usually enough.
_ANCHOR_PAGE: Final = 4


async def find_parent(sessions: SessionStore, session: str, headers: Headers) -> str | None:
    """What an input hangs below that does not say so itself; None: it is the first message.

    An edit and another answer stand beside what they replace, everything else follows the newest message.
    """
    tree = SessionTree(session)
    view = View(tree)
    query = Query(limit=_ANCHOR_PAGE)
    edited, replaced = headers.get(FORK_OF), headers.get(MSG_REGENERATE)
    target = edited or replaced
    if target is None:
        await read_back(sessions, tree, query, lambda: view.is_read(1))
        return view.send_anchor().parent
    await read_back(sessions, tree, query, lambda: tree.has_whole(target))
    return (view.edit_anchor(target) if edited else view.regenerate_anchor(target)).parent


async def read_back(
    sessions: SessionStore, tree: SessionTree, query: Query, enough: Callable[[], bool]
) -> Page:
    """Read the history into a tree, newest page first, until there is enough. Returns the last page read."""
    while True:
        page = await sessions.history.page(tree.session or "", query)
        for message in reversed(page.messages):
            tree.apply(message)
        if page.next_cursor is None or enough():
            return page
        query = replace(query, cursor=page.next_cursor, limit=PAGE)
