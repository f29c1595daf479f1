"""The messages of a session that are being appended to: what their appends' frames repeat of them (section 7.4)."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

from gateway.fanout.delivery import Aggregate, Delivery, OpenMessage, open_message
from selfhost_transport.store.entries import Appended, Created, Entry, Ref, Replaced, unpack_entry
from selfhost_transport.wire.serial import Position

logger = logging.getLogger(__name__)

OPEN_MESSAGES_KEPT: Final = 1024
"""Messages whose headers are remembered for appends to come; those that were not appended to for longest go first."""


class OpenMessages:
    """Makes deliveries of entries, in their order."""

    __slots__ = ("_kept", "_known", "_latest", "_latest_ref", "_series")

    def __init__(self, series: str, kept: int = OPEN_MESSAGES_KEPT) -> None:
        self._series = series
        self._kept = kept
        self._known: OrderedDict[Ref, OpenMessage] = OrderedDict()
        # The one at the end, appended to last, and the very object that named it: mostly it is the next one too.
        self._latest: OpenMessage | None = None
        self._latest_ref: Ref | None = None

    def delivery(self, entry: Entry) -> Delivery:
        """An entry on its way to attachments. An append to a message that is not known is `aggregate_only`."""
        if isinstance(entry, Appended):
            return Delivery(entry, self._series, self._appended(entry))
        if isinstance(entry, Created):
            for index, message in enumerate(entry.messages):
                self._remember(open_message(message, Ref(entry.position, index), self._series))
        elif isinstance(entry, Replaced):
            self._remember(open_message(entry.message, entry.ref, self._series))
        return Delivery(entry, self._series)

    def learn(self, aggregate: Aggregate) -> OpenMessage:
        """A message whose create was not seen is known from now on: appends to it can be deltas."""
        message = open_message(aggregate.message, aggregate.ref, self._series)
        if aggregate.ref not in self._known:
            self._remember(message)
        return message

    def _appended(self, entry: Appended) -> OpenMessage | None:
        if self._latest_ref is entry.ref and entry.extras is None:
            return self._latest
        known = self._known.get(entry.ref)
        if known is None:
            return None
        self._known.move_to_end(entry.ref)
        if entry.extras is not None:
            known = self._known[entry.ref] = known.with_changes(entry.extras)
        self._latest, self._latest_ref = known, entry.ref
        return known

    def _remember(self, message: OpenMessage) -> None:
        self._latest = self._latest_ref = None
        self._known[message.ref] = message
        if len(self._known) > self._kept:
            self._known.popitem(last=False)


def unpack_or_skip(position: Position, raw: bytes) -> Entry | None:
    """The entry, or None for one this version cannot read: it must not stop the others."""
    try:
        return unpack_entry(position, raw)
    except Exception:
        logger.exception("session.entry_unreadable position=%s", position.stream_id)
        return None
