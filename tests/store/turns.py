"""Short forms for turns in the store: asked for, taken, written, ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from selfhost_transport.store.entries import (
    Appended,
    Created,
    Entry,
    Ref,
)
from selfhost_transport.store.keys import bucket_of
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_operations import CreateMessage, OpenText
from selfhost_transport.store.turn_store import (
    ClosingMessages,
    Lease,
    TurnRequest,
    TurnStore,
)
from selfhost_transport.turns.context import STEP_START_PLACEHOLDER
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position

LEASE_MS = 10_000


SESSION = "room"


def extras(**headers: str) -> dict[str, Any]:
    return {"ai": {"transport": headers}}


def request(turn: str, *, owner: str = "alice", **changes: Any) -> TurnRequest:
    closing = ClosingMessages(
        run_start=Message(name="run-start", extras=extras(turn=turn)),
        step_start=Message(name="step-start", extras=extras(turn=turn)),
        step_cancelled=Message(name="step-cancelled", extras=extras(serial=STEP_START_PLACEHOLDER)),
        step_failed=Message(name="step-failed", extras=extras(serial=STEP_START_PLACEHOLDER)),
        run_cancelled=Message(name="run-cancelled", extras=extras(turn=turn)),
        run_lost=Message(name="run-lost", extras=extras(turn=turn)),
        run_merged=Message(name="run-merged", extras=extras(turn=turn)),
    )
    plain = TurnRequest(
        session=SESSION, turn_id=turn, agent="a", messages=[Message(name="input", data=turn)], owner=owner,
        input_id=f"in-{turn}", event_id=f"ev-{turn}", fingerprint="f", closing=closing, context=b"ctx",
        cancel_message=CANCEL,
    )  # fmt: skip
    return replace(plain, **changes)


CANCEL = Message(name="cancel", client_id="alice")


async def take(turns: TurnStore, worker: str = "w1", lease_ms: int = LEASE_MS) -> Lease | None:
    return await turns.take(bucket_of(SESSION, turns.keys.buckets), "a", worker, lease_ms)


async def started(turns: TurnStore, turn: str = "t1", lease_ms: int = LEASE_MS, **changes: Any) -> Lease:
    await turns.submit(request(turn, **changes))
    lease = await take(turns, lease_ms=lease_ms)
    assert lease is not None and lease.turn_id == turn
    return lease


async def open_text(turns: TurnStore, lease: Lease) -> OpenText:
    opened = CreateMessage(Message(name="text", data=""), closing_extras=extras(status="cancelled"))
    (position,) = await turns.write(lease, 1, [opened])
    return OpenText(Ref(position))


async def chunk(turns: TurnStore, lease: Lease, text: OpenText, data: str) -> None:
    turns.check_append(lease, await turns.append(lease, text, data))


async def log(sessions: SessionStore) -> list[Entry]:
    return await sessions.read_after(SESSION, Position.ZERO)


def names(entries: list[Entry]) -> list[str]:
    out = []
    for entry in entries:
        if isinstance(entry, Created):
            out += [str(message.name) for message in entry.messages]
        elif isinstance(entry, Appended):
            status = (entry.extras or {}).get("ai", {}).get("transport", {}).get("status")
            out.append(f"+{entry.data!s}" + (f" {status}" if status else ""))
    return out


async def finish(turns: TurnStore, lease: Lease) -> Position | None:
    return await turns.end(lease, "completed", [CreateMessage(Message(name="run-end"))])
