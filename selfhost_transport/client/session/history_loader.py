"""Reading the history into the tree: at the first attach, after a discontinuity, and page by page (section 7.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode

from selfhost_transport.client.connection.endpoint import Endpoint
from selfhost_transport.client.rest import HistoryPage, RestClient
from selfhost_transport.errors import ServiceError, TransportError
from selfhost_transport.wire.message import Message

_RETRY_S = 0.1
_LONGEST_RETRY_S = 2.0
# Attempts at a requested page; then 104011, as the SDKs do.
_PAGE_ATTEMPTS = 4
# Entries that a message of a conversation usually takes, its share of the turn's life cycle included.
_ENTRIES_PER_MESSAGE = 6
_SMALLEST_PAGE, _LARGEST_PAGE = 50, 1000


class HistoryLoader:
    """The one cursor into a session's past. Pages come newest first and reach back from where attaching began.

    Without a `page_size`, in entries, a page is as large as the messages wanted usually take, and the next one is
    twice as large: there is other traffic between them.
    """

    def __init__(self, rest: RestClient, endpoint: Callable[[], Endpoint], page_size: int | None) -> None:
        self._rest = rest
        self._endpoint = endpoint
        self._page_size = page_size
        self._limit = page_size or _SMALLEST_PAGE
        self._next_query: str | None = None
        # Serial of the oldest message read, or where delivery began if nothing was; None before the first attach.
        self._oldest: str | None = None
        # What `load_older` has to begin with, where nothing was read at the attach.
        self._start: str | None = None
        # Up to where retention has taken messages, once the oldest page was read.
        self.truncated_at: str | None = None
        # Why reading has not succeeded yet.
        self.trouble: ServiceError | None = None
        self._lock = asyncio.Lock()

    @property
    def has_older(self) -> bool:
        """Whether the service holds messages that were not read yet."""
        return self._next_query is not None or self._start is not None

    @property
    def oldest(self) -> str | None:
        """Serial of the oldest message read; everything since was."""
        return self._oldest

    def begin(self, attach_serial: str) -> None:
        """Nothing is read yet; `older` begins here, and after a gap everything since here must be read again."""
        self._start = self._oldest = attach_serial

    @property
    def has_begun(self) -> bool:
        """Whether there is a position down to which everything was read."""
        return self._oldest is not None

    def expect(self, messages: int) -> None:
        """So many messages of the conversation are wanted next."""
        wanted = messages * _ENTRIES_PER_MESSAGE
        self._limit = self._page_size or min(_LARGEST_PAGE, max(_SMALLEST_PAGE, wanted))

    async def join(self, attach_serial: str, enough: Callable[[list[Message]], bool]) -> list[Message]:
        """Messages up to the attach, oldest first: until there are `enough`, and as far back as was read before.

        `enough` is given each page as it comes, the newest page first, its messages oldest first. Tries until it
        succeeds. Raises TransportError when the service refuses.
        """
        back_to = self._oldest
        async with self._lock:
            self._start = None
            page = await self._persistently(attach_serial, None)
            pages = [page]
            has_enough = enough(page.messages[::-1])
            while page.next_query is not None and (
                not has_enough or (back_to is not None and page.messages[-1:] and _after(page, back_to))
            ):
                page = await self._persistently(attach_serial, page.next_query)
                pages.append(page)
                has_enough = enough(page.messages[::-1])
            self._next_query = page.next_query
            return self._oldest_first(pages, attach_serial)

    async def older(self) -> list[Message]:
        """The next page, oldest first; [] at the beginning. Raises CapabilityError, ServiceError 104011."""
        async with self._lock:
            if not self.has_older:
                return []
            page = await self._patiently()
            self._start = None
            self._next_query = page.next_query
            return self._oldest_first([page], None)

    def _oldest_first(self, pages: list[HistoryPage], attach_serial: str | None) -> list[Message]:
        self.truncated_at = pages[-1].truncated_at or self.truncated_at
        messages = [message for page in pages for message in page.messages]
        messages.reverse()
        if messages:
            self._oldest = messages[0].serial
        elif self._oldest is None:
            self._oldest = attach_serial
        return messages

    async def _page(self, from_serial: str | None, query: str | None) -> HistoryPage:
        endpoint = self._endpoint()
        if query is None:
            page = await self._rest.history(
                endpoint, from_serial=from_serial, limit=self._limit, conversation=True
            )
        else:
            page = await self._rest.page(endpoint, _with_limit(query, self._limit))
        self._limit = self._page_size or min(_LARGEST_PAGE, 2 * self._limit)
        return page

    async def _persistently(self, from_serial: str, query: str | None) -> HistoryPage:
        delay = _RETRY_S
        while True:
            try:
                page = await self._page(from_serial, query)
                self.trouble = None
                return page
            except ServiceError as error:
                # The gateway may be gone; the connection finds another one meanwhile.
                self.trouble = error
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_RETRY_S)

    async def _patiently(self) -> HistoryPage:
        for attempt in range(_PAGE_ATTEMPTS):
            try:
                return await self._page(self._start, self._next_query)
            except ServiceError as error:
                failure = error
                await asyncio.sleep(_RETRY_S * 2**attempt)
        raise TransportError(
            f"the history could not be read: {failure}", code=104011, status_code=500, cause=failure.info
        )


def _with_limit(query: str, limit: int) -> str:
    return urlencode({**dict(parse_qsl(query)), "limit": limit})


def _after(page: HistoryPage, serial: str) -> bool:
    """Whether a page does not reach back to a message yet."""
    oldest = page.messages[-1].serial if page.messages else None
    return oldest is not None and oldest > serial
