"""The pages of a history, read one after the other."""

from __future__ import annotations

from dataclasses import replace

from selfhost_transport.store.history import Page, Query
from selfhost_transport.store.session_store import SessionStore


async def pages(sessions: SessionStore, session: str, query: Query) -> list[Page]:
    found = [await sessions.history.page(session, query)]
    while (cursor := found[-1].next_cursor) is not None:
        found.append(await sessions.history.page(session, replace(query, cursor=cursor)))
    return found


def serials(page: Page) -> list[str]:
    return [str(message.serial) for message in page.messages]


def of_all(found: list[Page]) -> list[str]:
    return [serial for page in found for serial in serials(page)]
