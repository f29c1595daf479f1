"""`cancel --all --prefix`: the emergency stop across sessions, with a record of who did it (CAN-24)."""

from __future__ import annotations

import asyncio
import json
import logging

from selfhost_transport.commands.session_list import keys_beginning
from selfhost_transport.commands.stores import opened_stores
from selfhost_transport.settings import Settings
from selfhost_transport.store.turn_store import CancelFilter, Cancelled, Scope, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message

audit = logging.getLogger("selfhost_transport.audit")

_AT_ONCE = 50


def run_cancel_all(settings: Settings, prefix: str, *, by: str, force: bool, as_json: bool = False) -> None:
    """End every open turn of every session whose name begins with `prefix`; print, and record, what was ended."""
    replies = asyncio.run(_cancel_all(settings, prefix, by, force=force))
    turns = sum(len(reply.matched) for reply in replies.values())
    if as_json:
        ended = {session: list(reply.matched) for session, reply in replies.items()}
        print(json.dumps({"by": by, "prefix": prefix, "sessions": ended, "turns": turns}))
        return
    print(f"cancelled {turns} turn(s) in {len(replies)} session(s)")
    for session, reply in replies.items():
        print(f"  {session}  {' '.join(reply.matched)}")


async def _cancel_all(settings: Settings, prefix: str, by: str, *, force: bool) -> dict[str, Cancelled]:
    async with opened_stores(settings) as stores:
        turns = stores.turns
        sessions = sorted(await active_sessions(turns, prefix))
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
    reply = await turns.cancel(session, CancelFilter(Scope.ALL), message, early=False, force=force)
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
