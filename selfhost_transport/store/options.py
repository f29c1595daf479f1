"""How long things live in Redis, and how large they may grow; set once per deployment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SECOND_MS = 1000
DAY_MS = 86_400 * SECOND_MS


def keep_forever(session: str) -> int:
    """The retention of sessions about which nothing is said."""
    return 0


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """All durations in milliseconds."""

    # Entries younger than this are always in the log, so that a dropped connection resumes without a gap.
    window_ms: int = 120 * SECOND_MS
    # A publish repeated with the same id within this time is recognised.
    idempotency_ms: int = 10 * 60 * SECOND_MS
    # A session that was never written to expires this long after its last attachment.
    unused_session_ms: int = 10 * 60 * SECOND_MS
    # A session whose messages retention has taken is remembered for this, so that its positions are still understood.
    empty_session_ms: int = DAY_MS
    # An ended turn is remembered this long: answers to it get a typed error, repeats of its send its answer.
    ended_turn_ms: int = DAY_MS
    # The data of one message, assembled.
    max_message_bytes: int = 64 * 1024 * 1024
    # Turns of one session that may wait under policy `queue`.
    queue_cap: int = 100
    # Turns of one session without a terminal; a further send is refused. 0 = no limit.
    max_open_turns: int = 1000
    # Turns of one agent that may wait for a worker, in each bucket; 0 = no limit.
    max_waiting: int = 2000
    # Longest time a turn should wait for a worker at the pace at which they take; beyond it sends are refused. 0 = any.
    max_wait_ms: int = 1000
    # The same for a send that may be part of a burst.
    burst_wait_ms: int = 3000
    # A process that holds presence members is taken for dead when it did not renew for this long.
    presence_lease_ms: int = 5 * SECOND_MS
    # Members of one session; entering beyond it is refused with 91003.
    max_members: int = 10_000
    # Events kept in a session's presence history, approximately.
    presence_events: int = 10_000
    # Annotations kept of one message, approximately; its summary has them all.
    annotations: int = 10_000
    # How long messages of a session are kept after they were created; 0 = no limit.
    retention_of: Callable[[str], int] = keep_forever
