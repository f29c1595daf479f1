"""`cancel --all --prefix`: the emergency stop across sessions, with a record of who did it (CAN-24)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from selfhost_transport.commands.session_list import keys_beginning
from selfhost_transport.store.turn_store import CancelFilter, Cancelled, Scope, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message

audit = logging.getLogger("selfhost_transport.audit")

_AT_ONCE = 50


async def cancel_everywhere(
    turns: TurnStore, sessions: Sequence[str], prefix: str, by: str, *, force: bool
) -> dict[str, Cancelled]:
    """End every open turn of sessions whose names begin with `prefix`, and record what was ended."""
    replies: dict[str, Cancelled] = {}
    for start in range(0, len(sessions), _AT_ONCE):
        batch = sessions[start : start + _AT_ONCE]
        answers = await asyncio.gather(*(_cancel(turns, session, by, force=force) for session in batch))
        replies |= dict(zip(batch, answers, strict=True))
    audit.warning(
        "cancel.all by=%s prefix=%s sessions=%d turns=%d force=%s",
        by, prefix, len(replies), sum(len(reply.matched) for reply in replies.values()), force,
    )  # fmt: skip
    return replies


async def _cancel(turns: TurnStore, session: str, by: str, *, force: bool) -> Cancelled:
    message = Message(name=h.AI_CANCEL, client_id=by, extras=h.make_extras({h.CANCEL_ALL: "true"}))
    reply = await turns.cancels.cancel(session, CancelFilter(Scope.ALL), message, early=False, force=force)
    for turn in reply.matched:
        audit.warning(
            "turn.cancelled session=%s turn=%s by=%s position=%s", session, turn, by, reply.position
        )
    return reply


async def active_sessions(turns: TurnStore, prefix: str) -> list[str]:
    """Sessions with open turns whose names begin with `prefix`. Walks the keys of Redis: for operators only (P9)."""
    return [
        name for base in turns.keys.bases() async for name in keys_beginning(turns, base, f"{base}a:", prefix)
    ]
