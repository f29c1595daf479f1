"""The messages of a session that are being appended to: what their appends' frames repeat of them (section 7.4)."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from gateway.fanout.delivery import Aggregate, Delivery, OpenMessage, open_message
from selfhost_transport.store.entries import Appended, Created, Entry, Ref, Replaced, unpack_entry
from selfhost_transport.turns.headers import will_grow
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position

logger = logging.getLogger(__name__)

OPEN_MESSAGES_KEPT: Final = 1024
"""Growing messages whose headers are kept for appends to come; the least recently appended to go first."""
PLAIN_MESSAGES_KEPT: Final = 64
"""Recent messages of an application's own that nothing was appended to yet: only some of them ever grow."""


class OpenMessages:
    """Makes deliveries of entries, in their order.

    A message that has ended is not kept, nor one that can never grow. An append to a message that is not kept is still
    delivered, as the message's current state.
    """

    __slots__ = ("_epoch", "_growing", "_idle", "_kept", "_latest", "_latest_ref", "_plain")

    def __init__(self, epoch: str, kept: int = OPEN_MESSAGES_KEPT) -> None:
        self._epoch = epoch
        self._kept = kept
        self._growing: OrderedDict[Ref, OpenMessage] = OrderedDict()
        self._plain: OrderedDict[Ref, OpenMessage] = OrderedDict()
        # What nothing was appended to since the last call of `forget_idle`.
        self._idle: dict[Ref, OpenMessage] = {}
        # The message appended to last, and the very object that named it: mostly it is the next one too.
        self._latest: OpenMessage | None = None
        self._latest_ref: Ref | None = None

    def __len__(self) -> int:
        return len(self._growing) + len(self._plain) + len(self._idle)

    def __contains__(self, ref: object) -> bool:
        return ref in self._growing or ref in self._plain or ref in self._idle

    @property
    def latest(self) -> OpenMessage | None:
        """The message that the latest entry was appended to; None after any other entry."""
        return self._latest

    def delivery(self, entry: Entry) -> Delivery:
        """An entry for delivery to subscriptions. An append to an unknown message is `aggregate_only`."""
        if isinstance(entry, Appended):
            return Delivery(entry, self._epoch, self._appended(entry))
        if isinstance(entry, Created):
            for index, message in enumerate(entry.messages):
                self._remember(Ref(entry.position, index), message)
        elif isinstance(entry, Replaced):
            self._forget(entry.ref)
            if entry.action is not MessageAction.DELETE:
                self._remember(entry.ref, entry.message)
        return Delivery(entry, self._epoch)

    def learn(self, aggregate: Aggregate, held: Iterable[Delivery] = ()) -> None:
        """A message whose create was not seen is known from now on: appends to it can be deltas, those held included."""
        message = open_message(aggregate.message, aggregate.ref, self._epoch)
        if aggregate.ref not in self and will_grow(aggregate.message) is not False:
            self._keep(message)
        for delivery in held:
            if delivery.ref == aggregate.ref:
                message = delivery.adopt(message)

    def forget_idle(self) -> None:
        """Forget the messages that nothing was appended to since the call before; to be called now and then."""
        self._latest = self._latest_ref = None
        self._idle = {**self._plain, **self._growing}
        self._plain.clear()
        self._growing.clear()

    def _appended(self, entry: Appended) -> OpenMessage | None:
        if self._latest_ref is entry.ref and entry.extras is None:
            return self._latest
        known = self._forget(entry.ref)
        if known is None:
            return None
        if entry.extras is not None:
            known = known.with_changes(entry.extras)
            if will_grow(known.header) is False:
                return known
        self._keep(known)
        self._latest, self._latest_ref = known, entry.ref
        return known

    def _remember(self, ref: Ref, message: Message) -> None:
        grows = will_grow(message)
        if grows:
            self._keep(open_message(message, ref, self._epoch))
        elif grows is None:
            self._plain[ref] = open_message(message, ref, self._epoch)
            if len(self._plain) > PLAIN_MESSAGES_KEPT:
                self._plain.popitem(last=False)

    def _keep(self, message: OpenMessage) -> None:
        self._growing[message.ref] = message
        if len(self._growing) > self._kept:
            self._growing.popitem(last=False)

    def _forget(self, ref: Ref) -> OpenMessage | None:
        self._latest = self._latest_ref = None
        return self._growing.pop(ref, None) or self._plain.pop(ref, None) or self._idle.pop(ref, None)


def unpack_or_skip(position: Position, raw: bytes) -> Entry | None:
    """The entry, or None for one this version cannot read: it must not stop the others."""
    try:
        return unpack_entry(position, raw)
    except Exception:
        logger.exception("session.entry_unreadable position=%s", position.stream_id)
        return None
