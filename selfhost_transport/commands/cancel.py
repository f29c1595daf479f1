"""`cancel`: the authoritative cancel from the shell; works with no gateway and no worker running (P2, INT-20)."""

from __future__ import annotations

import asyncio
import json

from selfhost_transport.commands.stores import opened_stores
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import Settings
from selfhost_transport.store.turn_store import CancelFilter, Cancelled, Scope
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import format_position

_HEADERS = {Scope.TURN: h.RUN_ID, Scope.OWNER: "cancel-client-id", Scope.ALL: "cancel-all"}


def run_cancel(
    settings: Settings,
    session: str,
    *,
    turn: str | None,
    client: str | None,
    everything: bool,
    by: str,
    force: bool = False,
    as_json: bool = False,
) -> None:
    """Cancel and print what matched; `force`: without asking the agents' hooks.

    Raises InvalidArgument unless exactly one filter is given.
    """
    chosen = [
        CancelFilter(scope, value)
        for scope, value in (
            (Scope.TURN, turn),
            (Scope.OWNER, client),
            (Scope.ALL, "true" if everything else None),
        )
        if value is not None
    ]
    if len(chosen) != 1:
        raise InvalidArgument("name what to cancel by exactly one of --turn ID, --client ID, --all")
    print(_as_text(asyncio.run(_cancel(settings, session, chosen[0], by, force=force)), as_json=as_json))


async def _cancel(
    settings: Settings, session: str, chosen: CancelFilter, by: str, *, force: bool
) -> Cancelled:
    message = Message(
        name=h.AI_CANCEL, client_id=by, extras=h.make_extras({_HEADERS[chosen.scope]: chosen.value})
    )
    async with opened_stores(settings) as stores:
        return await stores.turns.cancel(session, chosen, message, early=False, force=force)


def _as_text(cancelled: Cancelled, *, as_json: bool) -> str:
    position = format_position(cancelled.position, cancelled.epoch)
    if as_json:
        report = {
            "position": position,
            "matched": cancelled.matched,
            "asked": cancelled.asked,
            "alreadyEnded": cancelled.already_ended,
        }
        return json.dumps(report)
    ended = [turn for turn in cancelled.matched if turn not in cancelled.asked]
    lines = [f"cancelled {len(ended)} turn(s) at {position}"]
    lines += [f"  cancelled          {turn}" for turn in ended]
    lines += [f"  decided by its agent   {turn}" for turn in cancelled.asked]
    lines += [f"  already ended      {turn}" for turn in cancelled.already_ended]
    return "\n".join(lines)
