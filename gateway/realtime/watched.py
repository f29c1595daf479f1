"""One channel that a socket watches: its subscription, and how it counts for others."""

from __future__ import annotations

from collections.abc import Callable

from gateway.fanout.feed import SessionFeed
from gateway.fanout.occupancy import OccupancyEvents, OccupancyTracker
from gateway.fanout.start import SubscriptionStart
from gateway.fanout.subscription import Subscription
from selfhost_transport.wire.actions import Flag


class Watched:
    """A subscription with the feed it belongs to, once it has one, and what ATTACHED is followed by."""

    __slots__ = (
        "client_id",
        "counted",
        "ended",
        "feed",
        "modes",
        "occupancy",
        "session",
        "start",
        "stop_reporting",
        "subscription",
        "sync_again",
        "syncing",
    )

    def __init__(
        self,
        session: str,
        subscription: Subscription,
        modes: Flag,
        occupancy: str | None,
        client_id: str | None,
    ) -> None:
        self.session = session
        # Whose it is; None: an anonymous client's.
        self.client_id = client_id
        self.subscription = subscription
        self.modes = modes
        self.feed: SessionFeed | None = None
        self.start: SubscriptionStart | None = None
        # Nothing more is to be sent for it.
        self.ended = False
        # The modes it counts with in the session's occupancy.
        self.counted: Flag | None = None
        # Its subscription to occupancy events, and how to end it.
        self.occupancy = occupancy
        self.stop_reporting: Callable[[], None] | None = None
        # Its members are being sent; they were asked for once more meanwhile.
        self.syncing = self.sync_again = False

    def count(self, occupancy: OccupancyTracker, modes: Flag | None) -> None:
        """Have it counted by its modes; None: it is gone."""
        if self.counted != modes:
            occupancy.count(self.session, self.counted, modes, self.client_id)
            self.counted = modes

    def report(self, occupancy: OccupancyTracker, wanted: str | None) -> None:
        """Begin, change or end reporting who else is there: the param `occupancy` (section 14.4)."""
        if not self.modes & Flag.SUBSCRIBE:
            wanted = None
        if self.stop_reporting is not None and self.occupancy == wanted:
            return
        self.occupancy = wanted
        if self.stop_reporting is not None:
            self.stop_reporting()
            self.stop_reporting = None
        if wanted is not None and self.feed is not None:
            events = OccupancyEvents(self.subscription, wanted)
            self.stop_reporting = occupancy.watch(self.session, events.send)
