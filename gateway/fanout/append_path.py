"""The way of the appends to one message, while nothing but their text differs: one call makes all their frames.

It is laid out by the session's feed once a message is appended to repeatedly, and given up with whatever could change
who gets which frame. `Delivery` says what the frames are; here they are made without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.fanout.delivery import OpenMessage, Variant
from gateway.fanout.selection import MUTE_ALL
from gateway.fanout.subscription import Subscription
from selfhost_transport.accelerator import AppendFrames, Lane, SendBuffer, Template, append_frames


class AppendPath:
    """From a notification to frames, and to the sockets of a session's live subscriptions."""

    __slots__ = ("_connection_id", "_entry_head", "_epoch", "_members", "_templates", "message")

    def __init__(
        self,
        message: OpenMessage,
        epoch: str,
        templates: Sequence[Template],
        members: Sequence[Mapping[Subscription, None]],
    ) -> None:
        self.message = message
        self._epoch = epoch.encode()
        self._entry_head = b"A%s\n" % str(message.ref).encode()
        self._templates = tuple(templates)
        # Of each template, who gets its frames; not copied.
        self._members = members
        self._connection_id = message.header.connection_id

    @classmethod
    def to(
        cls, live: Mapping[Variant, Mapping[Subscription, None]], message: OpenMessage, epoch: str
    ) -> AppendPath | None:
        """None where some subscription gets its frames in another way."""
        templates, members = [], []
        for variant, subscriptions in live.items():
            if not subscriptions or (variant.is_selective and not variant.passes(message.header)):
                continue
            if variant.whole or variant.envelope is not None:
                return None
            templates.append(message.template(variant).fixed_parts)
            members.append(subscriptions)
        return cls(message, epoch, templates, members)

    def frames(self, notification: bytes, last: bytes) -> AppendFrames | None:
        """The frames of a notification whose predecessor is `last`; None where it has to be looked at closely."""
        return append_frames(notification, last, self._entry_head, self._epoch, self._templates)

    def lane(self, last: bytes) -> Lane | None:
        """The same way for appends after `last`, compiled where that was possible; None unless all readers are websockets."""
        buffers: list[tuple[SendBuffer, ...]] = []
        for members in self._members:
            own: list[SendBuffer] = []
            for subscription in members:
                if subscription.mute is not None and subscription.mute in (self._connection_id, MUTE_ALL):
                    continue
                outlet = subscription.outlet
                buffer = getattr(outlet, "buffer", None)
                if not isinstance(buffer, SendBuffer) or subscription.write != outlet.write:
                    return None
                own.append(buffer)
            buffers.append(tuple(own))
        return Lane(last, self._entry_head, self._epoch, self._templates, tuple(buffers))

    def write(self, frames: Sequence[bytes]) -> tuple[int, Sequence[Subscription]]:
        """Write them. Returns to how many, and whose socket is full now."""
        count = 0
        slow: tuple[Subscription, ...] = ()
        for frame, members in zip(frames, self._members, strict=True):
            for subscription in members:
                mute = subscription.mute
                if mute is not None and mute in (self._connection_id, MUTE_ALL):
                    continue
                count += 1
                subscription.write(frame)
                if subscription.outlet.congested:
                    slow = (*slow, subscription)
        return count, slow
