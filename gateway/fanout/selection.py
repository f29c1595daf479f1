"""What one reader gets of a session: which messages, in which form, and from where on as deltas (section 7.4)."""

from __future__ import annotations

from collections.abc import Container
from enum import Enum, auto
from typing import Final

from gateway.fanout.delivery import Delivery, Variant
from selfhost_transport.store.entries import Ref
from selfhost_transport.wire.serial import Position

MUTE_ALL: Final = "*"
"""As `mute`: no messages at all. It cannot be the id of a connection."""


class DeliveryAction(Enum):
    """What a reader needs of a delivery."""

    SEND = auto()
    SKIP = auto()
    # The message's current state instead of a delta.
    AGGREGATE = auto()


class Selection:
    """What a subscription gets; `Subscription` adds when it gets it.

    `mute`: a connection id whose messages are not delivered (echo off), or MUTE_ALL.
    `presence`: it gets all members; without, those of `connection_id` only (section 8.2). `annotations`: it
    gets each annotation.
    """

    __slots__ = ("annotations", "connection_id", "mute", "presence", "seen", "start", "variant")

    def __init__(
        self,
        variant: Variant,
        *,
        mute: str | None = None,
        presence: bool = False,
        annotations: bool = False,
        connection_id: str | None = None,
    ) -> None:
        self.variant = variant
        self.mute = mute
        self.presence = presence
        self.annotations = annotations
        self.connection_id = connection_id
        # Messages created after this were delivered whole, so that deltas make sense.
        self.start = Position.ZERO
        # Older messages whose state was delivered since, and up to which version.
        self.seen: dict[Ref, Position] = {}

    def action_for(self, delivery: Delivery) -> DeliveryAction:
        """What to do with a delivery."""
        if delivery.is_presence:
            own = self.connection_id is not None and delivery.connection_id == self.connection_id
            return DeliveryAction.SEND if self.presence or own else DeliveryAction.SKIP
        if delivery.is_annotation:
            return DeliveryAction.SEND if self.annotations else DeliveryAction.SKIP
        if self.variant.is_selective and delivery.is_hidden(self.variant):
            return DeliveryAction.SKIP
        if self.mute is not None and self.mute in (delivery.connection_id, MUTE_ALL):
            return DeliveryAction.SKIP
        ref = delivery.ref
        if ref is None:
            return DeliveryAction.SEND
        version = self.seen.get(ref)
        if version is not None and delivery.position <= version:
            return DeliveryAction.SKIP
        if not delivery.is_append:
            if ref.position <= self.start:
                self.seen[ref] = delivery.position
            return DeliveryAction.SEND
        if delivery.aggregate_only or self.variant.whole:
            return DeliveryAction.AGGREGATE
        has_rest = ref.position > self.start or version is not None
        return DeliveryAction.SEND if has_rest else DeliveryAction.AGGREGATE

    def begin_anew(self, delivered: Position, start: Position) -> None:
        """Deltas of messages up to `start` no longer make sense, but for states delivered ahead of `delivered`."""
        self.seen = {ref: version for ref, version in self.seen.items() if version > delivered}
        self.start = start

    def forget_ended(self, delivered: Position, growing: Container[Ref]) -> None:
        """Forget the delivered states of messages that no longer grow."""
        if self.seen:
            kept = {r: version for r, version in self.seen.items() if version > delivered or r in growing}
            self.seen = kept
