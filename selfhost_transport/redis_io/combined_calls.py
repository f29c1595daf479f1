"""Calls of one script that leave together go to the server as one call: it reads, starts and answers once.

They stay calls of their own: each has its caller, its time, its refusal and its repetition. What runs them is the script
`several`, which answers with their replies joined by spaces, or with a list of them where there are errors among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from selfhost_transport.redis_io.calls import PendingCall
from selfhost_transport.redis_io.databases import LuaScript

FEWEST: Final = 4
"""Fewer cost Redis no less together than one by one."""
MOST: Final = 32
"""A script keeps every other client waiting: so many appends are a quarter of a millisecond."""
MOST_BYTES: Final = 65_536
"""The same for long texts."""

_SEVERAL: Final = attrgetter("combination.several")


def pack_calls(calls: Iterable[PendingCall]) -> list[bytes]:
    """What the server is sent for these calls, in their order: a command for each, or for several at once."""
    commands: list[bytes] = []
    for several, group in groupby(calls, _SEVERAL):
        run = list(group)
        for at in range(0, len(run), MOST):
            some = run[at : at + MOST]
            command = b"" if several is None or len(some) < FEWEST else _combined(several, some)
            if command and len(command) <= MOST_BYTES:
                some[0].combined = len(some)
                commands.append(command)
            else:
                commands += map(_alone, some)
    return commands


def replies_of(reply: Any) -> Sequence[Any]:
    """The replies to calls that were sent as one, in their order."""
    replies: Sequence[Any] = reply.split(b" ") if type(reply) is bytes else reply
    return replies


def _alone(call: PendingCall) -> bytes:
    call.combined = 0
    return call.packed_alone


def _combined(several: LuaScript, calls: list[PendingCall]) -> bytes:
    combinations = [call.combination for call in calls]
    # A key of the slot, whichever of them asks for it.
    guard = combinations[0].guard
    keys, arguments = (of_one * len(calls) for of_one in combinations[0].count)
    keys += bool(guard)
    number = b"%d" % keys
    head = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$%d\r\n%s\r\n" % (
        3 + keys + arguments, several.digest.encode(), len(number), number,
    )  # fmt: skip
    return b"".join([head, *[one.keys for one in combinations], guard, *[call.packed for call in calls]])
