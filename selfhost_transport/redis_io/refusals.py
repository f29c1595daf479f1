"""What an error reply of Redis means: whether the same call may succeed later, here or at another server."""

from __future__ import annotations

import re
from enum import Enum

from selfhost_transport.errors import (
    SessionErased,
    StoreFull,
    StoreUnavailable,
    StoreUnsuitable,
    TransportError,
)


class RedisFailure(StoreUnavailable):
    """A call of this process ended without its Redis having carried it out, as far as is known.

    Any other StoreUnavailable comes from another service, such as a gateway.
    """


class Refusal(Enum):
    """Nothing was done of the call in any of these cases; all but FINAL mean: later."""

    # This server cannot serve the call, or another one does: ask again where the primary is.
    ELSEWHERE = "elsewhere"
    # The slot is moving to another server and half of it may be there: the same server says when that is over.
    MOVING = "moving"
    # This server does not take writes, or anything, for the moment.
    LATER = "later"
    # There is no memory left. It may take long to come back.
    FULL = "full"
    FINAL = "final"


_KINDS = {
    "LOADING": Refusal.ELSEWHERE,
    "MASTERDOWN": Refusal.ELSEWHERE,
    "MOVED": Refusal.ELSEWHERE,
    "ASK": Refusal.MOVING,
    "TRYAGAIN": Refusal.MOVING,
    "CLUSTERDOWN": Refusal.ELSEWHERE,
    "READONLY": Refusal.ELSEWHERE,
    "NOREPLICAS": Refusal.LATER,
    "BUSY": Refusal.LATER,
    "MISCONF": Refusal.LATER,
    "OOM": Refusal.FULL,
}
_CODE = re.compile(r"[A-Z]+\b")
# Redis 6 puts the error of a command into that of the script: "ERR Error running script (call to f_…):
# @user_script:4: @user_script: 4: -READONLY You can't write …"
_WITHIN_SCRIPT = re.compile(r"@user_script: ?\d+: -?([A-Z]{2,})\b")
_ERASED = "SESSIONERASED"
"""What a script of a session says of one that was erased."""
_ADVICE = {
    "LOADING": "it is still loading its data",
    "MASTERDOWN": "this replica has lost its primary",
    "CLUSTERDOWN": "the Cluster does not serve all slots",
    "ASK": "a slot is being moved; `redis-cli --cluster fix` ends a move that was interrupted",
    "TRYAGAIN": "a slot is being moved; `redis-cli --cluster fix` ends a move that was interrupted",
    "READONLY": "this server is a replica: give the address of the primary, or of the Sentinels",
    "NOREPLICAS": "fewer replicas are connected than min-replicas-to-write asks for",
    "BUSY": "a script has been running for too long; SCRIPT KILL ends one that has not written",
    "MISCONF": "it could not save its data to disk: look at its log and at the disk",
}


def code_of(text: str) -> str:
    """The code an error reply begins with, also where it stands inside the error of a script."""
    if (within := _WITHIN_SCRIPT.search(text)) is not None:
        return within[1]
    match = _CODE.match(text)
    return "" if match is None else match[0]


def refusal_of(text: str) -> Refusal:
    """Whether a call that was answered with this error may be made again."""
    return _KINDS.get(code_of(text), Refusal.FINAL)


def as_transport_error(text: str) -> TransportError:
    """What an error reply of Redis means to the caller."""
    code, refusal = code_of(text), refusal_of(text)
    if refusal is Refusal.FULL:
        return StoreFull(
            "Redis is full (maxmemory reached): nothing was written. Free memory, raise maxmemory, or shorten "
            "the retention, then repeat the request"
        )
    if refusal is not Refusal.FINAL:
        why = f" ({_ADVICE[code]})" if code in _ADVICE else ""
        return RedisFailure(
            f"Redis does not accept writes at the moment{why}: {text}. Nothing was done; try again shortly"
        )
    if _ERASED in text:
        return SessionErased("the session was erased: what was in it is gone, and nothing can be sent to it")
    if code in ("NOAUTH", "WRONGPASS", "NOPERM") or "NOPERM" in text:
        return StoreUnsuitable(
            f"Redis refuses these credentials: {text}. Check the user's ACL (docs/deployment.md)"
        )
    return StoreUnsuitable(f"Redis refused an operation: {text}")
